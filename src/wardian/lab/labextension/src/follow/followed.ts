import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { PromiseDelegate } from '@lumino/coreutils';

type Request = KernelMessage.IExecuteRequestMsg;
type Reply = KernelMessage.IExecuteReplyMsg;

/** An execution that another page began, as what an output area listens to. */
export class Followed implements Kernel.IShellFuture<Request, Reply> {
  readonly msg: Request;
  onReply: Kernel.IShellFuture<Request, Reply>['onReply'] = () => undefined;
  onIOPub: Kernel.IShellFuture<Request, Reply>['onIOPub'] = () => undefined;
  onStdin: Kernel.IShellFuture<Request, Reply>['onStdin'] = () => undefined;
  /** The number of its prompt, once that is known. */
  number: number | null = null;
  isDisposed = false;

  private _kernel: Kernel.IKernelConnection;
  private _done = new PromiseDelegate<Reply>();

  constructor(kernel: Kernel.IKernelConnection, header: KernelMessage.IHeader) {
    this._kernel = kernel;
    // What an output area reads of its request is who sent it.
    this.msg = { header } as Request;
    this.done.catch(() => undefined);
  }

  /** Settles when it has ended, or when another execution takes its place. Nobody sent us its reply: there is none. */
  get done(): Promise<Reply> {
    return this._done.promise;
  }

  /** Show a message that belongs to it. */
  take(message: KernelMessage.IMessage): void {
    if (this.isDisposed) {
      return;
    }
    if (message.channel === 'stdin') {
      void this.onStdin(message as KernelMessage.IStdinMessage);
      return;
    }
    const output = message as KernelMessage.IIOPubMessage;
    if (output.header.msg_type === 'execute_input') {
      this.number = (output as KernelMessage.IExecuteInputMsg).content.execution_count;
    } else if (output.header.msg_type !== 'status') {
      void this.onIOPub(output);
    } else if ((output as KernelMessage.IStatusMsg).content.execution_state === 'idle') {
      this._done.resolve(undefined as unknown as Reply);
    }
  }

  /** Nothing more will come. */
  end(): void {
    this._done.resolve(undefined as unknown as Reply);
    this.isDisposed = true;
  }

  sendInputReply(content: KernelMessage.IInputReplyMsg['content'], parent: KernelMessage.IInputReplyMsg['parent_header']): void {
    this._kernel.sendInputReply(content, parent);
  }

  registerMessageHook(): void {}

  removeMessageHook(): void {}

  dispose(): void {
    this.isDisposed = true;
    this._done.reject(new Error('another execution took its place'));
  }
}
