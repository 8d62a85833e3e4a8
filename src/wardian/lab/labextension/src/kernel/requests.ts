import type { Kernel } from '@jupyterlab/services';
import type { JSONObject } from '@lumino/coreutils';

const KINDS = ['complete_request', 'inspect_request'];

/** Send `bound()`, the binding in a cell's metadata, with each completion and inspection: they carry none of their cell's metadata. */
export function tellWhere(kernel: Kernel.IKernelConnection, bound: () => JSONObject | null): void {
  const send = kernel.sendShellMessage.bind(kernel);
  kernel.sendShellMessage = (message, expectReply, disposeOnDone) => {
    if (KINDS.includes(message.header.msg_type)) {
      const wardian = bound();
      if (wardian) {
        message.metadata = { ...message.metadata, wardian };
      }
    }
    return send(message, expectReply, disposeOnDone);
  };
}
