import { type Kernel, KernelMessage } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import type { IBound } from '../binding/binding';
import type { INodeRef } from '../binding/selectors';

/** A node as the kernel sees it. */
export interface INode extends INodeRef {
  state: string;
  detail: string;
}

/** How a cell fares on one node: queued, running, done, failed, interrupted, timed out; for how long, seconds; why it failed. */
export interface IProgress {
  state: string;
  seconds?: number;
  reason?: string;
  /** When we were told, milliseconds of `performance.now()`. */
  at: number;
}

/** How a cell fares: queued, starting, running, done, failed, interrupted, timed out or aborted. */
export interface ICellState {
  cell: string;
  execution: string;
  state: string;
  on?: string;
  reason?: string;
  nodes: Record<string, IProgress>;
}

/** Nodes and languages; `names` are those of groups and roles, also of such without nodes. `lacking` says why there is no environment. */
export interface IEnvironment {
  nodes: INode[];
  names: string[];
  languages: Record<string, { name?: string; mimetype?: string }>;
  lacking?: { message: string; remedy: string | null };
  /** How long it is held, in seconds since the epoch, and what happens then. */
  lease?: { end: number; at_end: 'down' | 'keep' };
}

interface ITold {
  sequence: number;
  environment?: IEnvironment | null;
  sticky?: IBound | null;
  cells?: ICellState[];
  durations?: Record<string, number>;
}

/** What changed: the ids of cells, or everything else. */
export type Change = { cells: string[] } | 'environment';

/** What one Wardian kernel tells of its nodes and cells, kept up to date. */
export class Watch implements IDisposable {
  environment: IEnvironment | null = null;
  sticky: IBound | null = null;
  readonly kernel: Kernel.IKernelConnection;
  private _cells = new Map<string, ICellState>();
  private _durations = new Map<string, number>();
  private _sequence = -1;
  private _asking = 0;
  private _early: ITold[] = [];
  private _changed = new Signal<this, Change>(this);
  private _disposed = false;

  constructor(kernel: Kernel.IKernelConnection) {
    this.kernel = kernel;
    kernel.iopubMessage.connect(this._heard, this);
    kernel.connectionStatusChanged.connect(this._reconnected, this);
    kernel.statusChanged.connect(this._restarted, this);
    kernel.disposed.connect(() => this.dispose());
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  get changed(): ISignal<this, Change> {
    return this._changed;
  }

  /** How a cell fares, or fared when it ran last while we watched. */
  cell(id: string): ICellState | undefined {
    return this._cells.get(id);
  }

  /** How long a cell took when it ended well last, seconds; undefined where it never did. */
  duration(id: string): number | undefined {
    return this._durations.get(id);
  }

  /** Ask what there is, now. */
  async refresh(): Promise<void> {
    if (this._disposed || this.kernel.isDisposed) {
      return;
    }
    const request = KernelMessage.createMessage({
      channel: 'shell',
      // no type that the library knows
      msgType: 'wardian_watch_request' as 'kernel_info_request',
      session: this.kernel.clientId,
      username: this.kernel.username,
      content: {}
    });
    this._asking += 1;
    try {
      const reply = await this.kernel.sendShellMessage(request, true, true).done;
      const told = reply.content as unknown as ITold;
      this._sequence = told.sequence;
      this._take({ sticky: null, ...told });
    } catch {
      // The kernel has gone; a new one, or a new connection, is asked anew.
    } finally {
      this._asking -= 1;
    }
    const early = this._early.filter(told => told.sequence > this._sequence);
    this._early = [];
    early.forEach(told => this._follow(told));
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      Signal.clearData(this);
    }
  }

  private _heard(_: Kernel.IKernelConnection, message: KernelMessage.IIOPubMessage): void {
    if ((message.header.msg_type as string) === 'wardian_update') {
      const told = message.content as unknown as ITold;
      if (this._asking) {
        this._early.push(told);
      } else {
        this._follow(told);
      }
    }
  }

  private _follow(told: ITold): void {
    if (told.sequence === this._sequence + 1) {
      this._sequence = told.sequence;
      this._take(told);
    } else if (told.sequence > this._sequence) {
      // The server drops messages when a kernel sends too many.
      void this.refresh();
    }
  }

  private _take(told: Omit<ITold, 'sequence'>): void {
    if (told.environment !== undefined) {
      this.environment = told.environment;
    }
    if (told.sticky !== undefined) {
      this.sticky = told.sticky;
    }
    told.cells?.forEach(entry => this._merge(entry));
    Object.entries(told.durations ?? {}).forEach(([id, seconds]) => this._durations.set(id, seconds));
    if (told.environment !== undefined || told.sticky !== undefined || told.durations !== undefined) {
      this._changed.emit('environment');
    }
    if (told.cells?.length) {
      this._changed.emit({ cells: told.cells.map(entry => entry.cell) });
    }
  }

  private _merge(entry: ICellState): void {
    const at = performance.now();
    const nodes = Object.fromEntries(Object.entries(entry.nodes).map(([name, progress]) => [name, { ...progress, at }]));
    const known = this._cells.get(entry.cell);
    if (known?.execution === entry.execution) {
      this._cells.set(entry.cell, { ...known, ...entry, nodes: { ...known.nodes, ...nodes } });
    } else {
      this._cells.set(entry.cell, { ...entry, nodes });
    }
    if (entry.state === 'done') {
      const took = Object.values(this._cells.get(entry.cell)!.nodes).map(progress => progress.seconds ?? 0);
      this._durations.set(entry.cell, Math.max(0, ...took));
    }
  }

  private _reconnected(_: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    if (status === 'connected') {
      void this.refresh();
    }
  }

  private _restarted(_: Kernel.IKernelConnection, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting') {
      this._sequence = -1;
      this._cells.clear();
      this._changed.emit('environment');
    } else if (this._sequence < 0 && !this._asking && (status === 'idle' || status === 'busy')) {
      void this.refresh();
    }
  }
}
