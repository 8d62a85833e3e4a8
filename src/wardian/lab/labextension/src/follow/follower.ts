import type { CodeCell } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { type Kernel, KernelMessage } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';

import { Followed } from './followed';

/** An execution as the kernel reports it: its cell, the code that ran, when it ended (seconds since the epoch), what it sent. */
interface IExecution {
  cell: string;
  code: string;
  header: KernelMessage.IHeader;
  ended: number | null;
  messages: KernelMessage.IMessage[];
}

/** Shows what one kernel runs in one notebook, and what it ran while no page, or another one, showed it. */
export class Follower {
  private _panel: NotebookPanel;
  private _kernel: Kernel.IKernelConnection;
  private _followed = new Map<string, Followed>();
  private _waiting: KernelMessage.IMessage[] | null = null;
  private _heard = false;
  private _restarted = false;
  private _request = '';

  constructor(panel: NotebookPanel, kernel: Kernel.IKernelConnection) {
    this._panel = panel;
    this._kernel = kernel;
    kernel.anyMessage.connect(this._receive, this);
    kernel.statusChanged.connect(this._status, this);
    kernel.disposed.connect(this._end, this);
    panel.disposed.connect(() => Signal.disconnectBetween(kernel, this));
  }

  /** Ask the kernel what this page has missed, show it, and go on from there. */
  async begin(): Promise<void> {
    const request = KernelMessage.createMessage({
      channel: 'shell',
      // no type that the library knows
      msgType: 'wardian_follow_request' as 'execute_request',
      session: this._kernel.clientId,
      username: this._kernel.username,
      content: { since: this._saved() } as unknown as KernelMessage.IExecuteRequestMsg['content']
    });
    this._request = request.header.msg_id;
    this._waiting = [];
    this._heard = false;
    // The reply alone is not enough: its "idle" shows that all output from now on is heard here.
    const reply = await this._kernel.sendShellMessage(request, true, true).done;
    const { cells } = reply.content as unknown as { cells?: IExecution[] };
    cells?.forEach(execution => this._show(execution));
    const waiting = this._waiting;
    this._waiting = null;
    waiting.forEach(message => this._take(message));
  }

  /** A kernel that died and was started anew knows what nodes go on with. */
  private _status(_: Kernel.IKernelConnection, status: Kernel.Status): void {
    if (status === 'autorestarting') {
      this._end();
      this._restarted = true;
    } else if (this._restarted && (status === 'idle' || status === 'busy')) {
      this._restarted = false;
      void this.begin();
    }
  }

  /** The kernel has gone, and with it what is followed. */
  private _end(): void {
    this._followed.forEach(followed => followed.end());
    this._followed.clear();
  }

  private _receive(_: Kernel.IKernelConnection, { msg, direction }: Kernel.IAnyMessageArgs): void {
    if (direction !== 'recv' || (msg.channel !== 'iopub' && msg.channel !== 'stdin')) {
      return;
    }
    if (parentOf(msg) === this._request) {
      if (this._waiting && !this._heard) {
        // Output from before is in the reply.
        this._heard = true;
        this._waiting = this._waiting.filter(message => message.channel === 'stdin');
      }
    } else if (this._waiting) {
      this._waiting.push(msg);
    } else {
      this._take(msg);
    }
  }

  private _take(message: KernelMessage.IMessage): void {
    const own = this._followed.get(parentOf(message));
    if (own) {
      own.take(message);
    } else if (message.header.msg_type === 'update_display_data') {
      this._followed.forEach(followed => followed.take(message));
    }
  }

  private _show(execution: IExecution): void {
    const cell = this._panel.content.widgets.find(widget => widget.model.id === execution.cell) as CodeCell | undefined;
    const known = cell?.outputArea?.future;
    if (cell?.model.type !== 'code' || (known && !known.isDisposed) || !wanted(cell, execution)) {
      return;
    }
    const model = cell.model;
    const followed = new Followed(this._kernel, execution.header);
    this._followed.set(execution.header.msg_id, followed);
    model.trusted = true;
    cell.outputHidden = false;
    cell.outputArea.future = followed;
    model.executionState = 'running';
    followed.done.then(
      () => {
        model.executionCount = followed.number;
        model.executionState = 'idle';
      },
      () => undefined
    );
    execution.messages.forEach(message => followed.take(message));
  }

  /** When the notebook was saved last, seconds since the epoch. */
  private _saved(): number {
    return Date.parse(this._panel.context.contentsModel?.last_modified ?? '') / 1000 || 0;
  }
}

/** What has ended is shown only in a cell that is still what it was. */
function wanted(cell: CodeCell, execution: IExecution): boolean {
  return execution.ended === null || cell.model.sharedModel.getSource() === execution.code;
}

function parentOf(message: KernelMessage.IMessage): string {
  return 'msg_id' in message.parent_header ? message.parent_header.msg_id : '';
}
