import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { merged } from './merge';
import type { Server } from './server';
import type { IEntry, IEnvironment, IUsage } from './types';

/** How many entries of the journal, and how many measurements of each node's use, are kept. */
const KEPT_ENTRIES = 300;
const KEPT_USAGE = 90;

/** From a lost connection to the next attempt, milliseconds: at first, and at most. */
const FIRST_DELAY = 100;
const LONGEST_DELAY = 1000;

export type Connection = 'connecting' | 'open' | 'lost';

type Message =
  | { type: 'snapshot'; epoch: string; number: number; sequence: number; state: IEnvironment }
  | { type: 'patch'; from: number; number: number; patch: Partial<IEnvironment> }
  | { type: 'entries'; sequence: number; missed: number; entries: IEntry[] }
  | { type: 'resumed'; number: number; sequence: number };

/** An environment, kept true by the server's events. Tells at most once a frame that it has changed. */
export class Live implements IDisposable {
  readonly path: string;
  readonly instance: string;
  readonly changed = new Signal<this, void>(this);
  connection: Connection = 'connecting';
  state: IEnvironment | null = null;
  /** What happened since this began to listen, oldest first. */
  entries: readonly IEntry[] = [];
  isDisposed = false;
  /** That somebody asked to see what `up` would do, and the selector of the cell that needs it. Whoever shows it takes it from here. */
  wanted: { selector: string | null } | null = null;

  private _server: Server;
  private _socket: WebSocket | null = null;
  private _epoch = '';
  private _number = -1;
  private _sequence = 0;
  private _delay = FIRST_DELAY;
  private _retry: number | undefined;
  private _frame: number | undefined;
  private _traffic = 0;
  private _usage = new Map<string, readonly IUsage[]>();

  constructor(server: Server, path: string, instance: string) {
    this._server = server;
    this.path = path;
    this.instance = instance;
    window.addEventListener('online', this._connect);
    this._connect();
  }

  /** The last measurements of what a node uses, oldest first. */
  usage(node: string): readonly IUsage[] {
    return this._usage.get(node) ?? [];
  }

  /** Say that what links carry is looked at, or no longer is. */
  watchTraffic(on: boolean): void {
    const before = this._traffic > 0;
    this._traffic += on ? 1 : -1;
    if (before !== this._traffic > 0) {
      this._askTraffic();
    }
  }

  /** Ask for the plan of `up` to be shown. */
  want(selector: string | null): void {
    this.wanted = { selector };
    this.changed.emit();
  }

  dispose(): void {
    this.isDisposed = true;
    window.removeEventListener('online', this._connect);
    window.clearTimeout(this._retry);
    if (this._frame !== undefined) {
      cancelAnimationFrame(this._frame);
    }
    this._socket?.close();
    Signal.clearData(this);
  }

  private _connect = (): void => {
    window.clearTimeout(this._retry);
    if (this.isDisposed || this._socket) {
      return;
    }
    const seen = this._epoch ? { epoch: this._epoch, number: this._number, sequence: this._sequence } : {};
    const socket = this._server.socket('events', { path: this.path, instance: this.instance, ...seen });
    this._socket = socket;
    socket.onmessage = event => this._take(JSON.parse(event.data as string) as Message);
    socket.onopen = () => this._traffic > 0 && this._askTraffic();
    socket.onclose = () => {
      this._socket = null;
      if (this.isDisposed) {
        return;
      }
      this.connection = 'lost';
      this._tell();
      this._retry = window.setTimeout(this._connect, this._delay);
      this._delay = Math.min(2 * this._delay, LONGEST_DELAY);
    };
  };

  private _take(message: Message): void {
    this.connection = 'open';
    this._delay = FIRST_DELAY;
    if (message.type === 'snapshot') {
      this._epoch = message.epoch;
      this._number = message.number;
      this._sequence = message.sequence;
      this._become(message.state);
    } else if (message.type === 'patch') {
      if (message.from !== this._number || !this.state) {
        // a difference is missing: the next connection begins with all of it
        this._epoch = '';
        this._socket?.close();
        return;
      }
      this._number = message.number;
      this._become(merged(this.state, message.patch));
    } else if (message.type === 'entries') {
      this._sequence = message.sequence;
      const ids = new Set(message.entries.map(entry => entry.id));
      this.entries = [...this.entries.filter(entry => !ids.has(entry.id)), ...message.entries].slice(-KEPT_ENTRIES);
    }
    this._tell();
  }

  private _askTraffic(): void {
    if (this._socket?.readyState === WebSocket.OPEN) {
      this._socket.send(JSON.stringify({ type: 'traffic', wanted: this._traffic > 0 }));
    }
  }

  private _become(state: IEnvironment): void {
    for (const [name, node] of Object.entries(state.nodes ?? {})) {
      if (node.usage && node.usage !== this.state?.nodes?.[name]?.usage) {
        this._usage.set(name, [...this.usage(name), node.usage].slice(-KEPT_USAGE));
      }
    }
    this.state = state;
  }

  private _tell(): void {
    this._frame ??= requestAnimationFrame(() => {
      this._frame = undefined;
      this.changed.emit();
    });
  }
}
