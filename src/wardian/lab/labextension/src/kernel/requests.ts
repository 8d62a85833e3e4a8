import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { JSONObject } from '@lumino/coreutils';

const KINDS = ['complete_request', 'inspect_request'];

/** Let a kernel know with each completion and inspection what `bound` says of the code: they carry none of their cell's metadata. */
export function tellWhere(kernel: Kernel.IKernelConnection, bound: (code: string) => JSONObject | null): void {
  const send = kernel.sendShellMessage.bind(kernel);
  kernel.sendShellMessage = (message, expectReply, disposeOnDone) => {
    if (KINDS.includes(message.header.msg_type)) {
      const { code } = message.content as KernelMessage.ICompleteRequestMsg['content'];
      const wardian = bound(code);
      if (wardian) {
        message.metadata = { ...message.metadata, wardian };
      }
    }
    return send(message, expectReply, disposeOnDone);
  };
}
