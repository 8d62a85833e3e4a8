import type { CodeCell } from '@jupyterlab/cells';
import type { IStream } from '@jupyterlab/nbformat';
import type { TranslationBundle } from '@jupyterlab/translation';

import { type INodeRef, pick } from '../binding/selectors';
import type { ICellState } from '../watch/watch';
import { element } from './dom';
import { stateOf, words } from './states';

/** The kernel's prefix of each line of a cell on several nodes: whose it is. */
const PREFIX = /^(\S.*?) *│ ?(.*)$/;
const COLOR = /\x1b\[[0-9;]*m/g;
/** Milliseconds between two redraws. */
const REDRAW = 200;
/** Lines up to which all lanes are open at first. */
const FEW = 30;
const BAD = ['failed', 'timed out'];

/** What each node printed, by node, in lanes that fold; those that failed are open. */
export class Lanes {
  readonly node: HTMLElement;
  private _cell: CodeCell;
  private _nodes: () => readonly INodeRef[];
  private _state: () => ICellState | undefined;
  private _trans: TranslationBundle;
  private _observer = new MutationObserver(() => this._soon());
  private _timer: number | undefined;
  /** Lanes that were folded or unfolded by hand, in which execution. */
  private _chosen = new Map<string, boolean>();
  private _execution: string | undefined;

  constructor(cell: CodeCell, nodes: () => readonly INodeRef[], state: () => ICellState | undefined, trans: TranslationBundle) {
    this._cell = cell;
    this._nodes = nodes;
    this._state = state;
    this._trans = trans;
    this.node = element('div', { class: 'wardian-Lanes', role: 'group', 'aria-label': trans.__('Output by node') });
  }

  get shown(): boolean {
    return this.node.isConnected;
  }

  show(): void {
    const outputs = this._cell.node.querySelector(':scope > .jp-Cell-outputWrapper');
    if (outputs) {
      outputs.before(this.node);
      this._cell.addClass('wardian-mod-lanes');
      this._observer.observe(this._cell.outputArea.node, { childList: true, characterData: true, subtree: true });
      this.update();
    }
  }

  hide(): void {
    this._observer.disconnect();
    window.clearTimeout(this._timer);
    this._timer = undefined;
    this.node.remove();
    if (!this._cell.isDisposed) {
      this._cell.removeClass('wardian-mod-lanes');
    }
  }

  update(): void {
    const state = this._state();
    if (state?.execution !== this._execution) {
      this._execution = state?.execution;
      this._chosen.clear();
    }
    const printed = this._printed();
    const total = [...printed.values()].reduce((sum, lines) => sum + lines.length, 0);
    const names = new Set([...Object.keys(state?.nodes ?? {}), ...printed.keys()]);
    const lanes = [...names].map(name => this._lane(name, state, printed.get(name) ?? [], total));
    this.node.replaceChildren(...lanes);
  }

  private _lane(name: string, state: ICellState | undefined, lines: string[], total: number): HTMLElement {
    const now = state ? stateOf(state, name) : '';
    const open = this._chosen.get(name) ?? (BAD.includes(now) || total <= FEW);
    const count = this._trans._n('%1 line', '%1 lines', lines.length);
    const head = element(
      'summary',
      { class: 'wardian-Lanes-head', 'data-state': now },
      element('b', {}, name),
      ` ${[now && words(now, state?.nodes[name], this._trans), count].filter(Boolean).join(', ')}`
    );
    const reason = state?.nodes[name]?.reason;
    const text = [...lines, ...(reason ? [reason] : [])].join('\n');
    const lane = element('details', { class: 'wardian-Lanes-lane', open: open ? '' : null }, head, element('pre', {}, text));
    head.addEventListener('click', () => this._chosen.set(name, !lane.open));
    return lane;
  }

  /** The lines of each node. One that several printed alike is of each of them. */
  private _printed(): Map<string, string[]> {
    const printed = new Map<string, string[]>();
    const nodes = this._nodes();
    const outputs = this._cell.model.outputs;
    const owners = new Map<string, string[]>();
    for (let index = 0; index < outputs.length; index += 1) {
      const output = outputs.get(index).toJSON();
      const text = output.output_type === 'stream' ? (output as IStream).text : '';
      for (const line of (Array.isArray(text) ? text.join('') : text).split('\n')) {
        const [, whose = '', rest = ''] = PREFIX.exec(line.replace(COLOR, '')) ?? [];
        const names = owners.get(whose) ?? (whose ? pick(whose, nodes).nodes : []);
        owners.set(whose, names);
        names.forEach(name => append(printed, name, rest));
      }
    }
    return printed;
  }

  private _soon(): void {
    this._timer ??= window.setTimeout(() => {
      this._timer = undefined;
      this.update();
    }, REDRAW);
  }
}

function append(printed: Map<string, string[]>, name: string, line: string): void {
  const lines = printed.get(name);
  if (lines) {
    lines.push(line);
  } else {
    printed.set(name, [line]);
  }
}
