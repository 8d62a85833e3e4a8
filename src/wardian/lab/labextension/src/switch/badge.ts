import type { TranslationBundle } from '@jupyterlab/translation';

import type { IBinding } from '../binding/binding';
import type { IPick } from '../binding/selectors';
import type { ICellState } from '../watch/watch';
import { button, element, stripes } from './dom';
import { stateOf, summary, words } from './states';

/** Nodes of one cell whose states are shown one by one. */
const LANES = 16;

/** Everything that a badge shows. `problem` says why the cell could not run as it is bound. */
export interface IShown {
  binding: IBinding;
  pick: IPick;
  colors: Map<string, number>;
  state: ICellState | undefined;
  problem: string;
  canCreate: boolean;
  /** That it would not end before the lease does. */
  late: string;
  canExtend: boolean;
}

/** What can be done from a badge. */
export interface IActions {
  choose(anchor: HTMLElement): void;
  create(): void;
  runAtHome(): void;
  extend(): void;
  /** Show or hide the output by node; says whether it is shown now. */
  toggleLanes(): boolean;
}

/** The line above a cell that shows where it runs, and how it fares there. */
export class Badge {
  readonly node: HTMLElement;
  private _trans: TranslationBundle;
  private _actions: IActions;
  private _where: HTMLButtonElement;
  private _state: HTMLElement;
  private _lanes: HTMLElement;
  private _fold: HTMLButtonElement;
  private _problem: HTMLElement;
  private _late: HTMLElement;
  private _drawn = '';

  constructor(actions: IActions, trans: TranslationBundle) {
    this._actions = actions;
    this._trans = trans;
    this._where = button('wardian-Badge-where', '', () => actions.choose(this._where));
    this._where.setAttribute('aria-haspopup', 'dialog');
    this._state = element('span', { class: 'wardian-Badge-state' });
    this._lanes = element('ul', { class: 'wardian-Badge-lanes', 'aria-label': trans.__('States of the nodes') });
    this._fold = button('wardian-Badge-act wardian-Badge-fold', trans.__('By node'), () => {
      this._fold.setAttribute('aria-pressed', `${actions.toggleLanes()}`);
    });
    this._fold.title = trans.__('Show what each node printed in a lane of its own');
    this._fold.setAttribute('aria-pressed', 'false');
    this._problem = element('span', { class: 'wardian-Badge-problem' });
    this._late = element('span', { class: 'wardian-Badge-late' });
    this.node = element('div', { class: 'wardian-Badge' }, this._where, this._state, this._lanes, this._fold, this._problem, this._late);
    // The notebook would take a press for one on its cell, and make it the editor's focus.
    this.node.addEventListener('mousedown', event => event.stopPropagation());
  }

  /** The button that opens the picker. */
  get anchor(): HTMLElement {
    return this._where;
  }

  /** Bring it up to date. */
  show(shown: IShown): void {
    this._drawWhere(shown);
    this.tick(shown);
    this._drawProblem(shown);
    this.drawLate(shown);
  }

  /** Bring times and states up to date. */
  tick({ state, colors }: IShown): void {
    const nodes = state ? Object.keys(state.nodes) : [];
    const several = nodes.length > 1;
    const [only] = nodes;
    let text = '';
    if (state && several) {
      text = summary(state, this._trans);
    } else if (state && only !== undefined && state.state !== 'starting') {
      text = words(stateOf(state, only), state.nodes[only], this._trans);
    } else if (state) {
      text = words(state.state, undefined, this._trans);
    }
    setText(this._state, text);
    this._state.title = (only !== undefined && !several && state?.nodes[only]?.reason) || state?.reason || '';
    this._state.dataset['state'] = state && !several && only !== undefined ? stateOf(state, only) : (state?.state ?? '');
    this._fold.hidden = !several && this._fold.getAttribute('aria-pressed') === 'false';
    this._drawLanes(state && several ? state : undefined, nodes, colors);
  }

  private _drawWhere({ binding, pick, colors, problem }: IShown): void {
    const key = JSON.stringify([binding, pick, problem, pick.nodes.map(node => colors.get(node))]);
    if (key === this._drawn) {
      return;
    }
    this._drawn = key;
    const trans = this._trans;
    const text = binding.selector ?? trans.__('home');
    const mark = element('span', { class: 'wardian-Badge-mark', 'aria-hidden': 'true' });
    mark.style.background = pick.nodes.length ? stripes(pick.nodes.map(node => colors.get(node) ?? 0)) : '';
    const parts: (Node | string)[] = [mark, element('span', { class: 'wardian-Badge-selector' }, text)];
    if (pick.nodes.length > 1) {
      parts.push(element('span', { class: 'wardian-Badge-detail' }, trans._n('%1 node', '%1 nodes', pick.nodes.length)));
    }
    if (binding.selector !== null && binding.language !== 'python') {
      parts.push(element('span', { class: 'wardian-Badge-detail' }, binding.language));
    }
    if (binding.source === 'sticky') {
      parts.push(element('span', { class: 'wardian-Badge-detail' }, trans.__('sticky')));
    }
    this._where.replaceChildren(...parts);
    this._where.title = binding.selector === null ? trans.__('This cell runs at home') : pick.nodes.join(', ');
    this._where.setAttribute('aria-label', trans.__('Runs on %1, choose where', parts.slice(1).map(textOf).join(', ')));
    this.node.dataset['where'] = binding.selector === null ? 'home' : problem ? 'problem' : 'nodes';
  }

  private _drawLanes(state: ICellState | undefined, nodes: string[], colors: Map<string, number>): void {
    const shown = state ? nodes.slice(0, LANES) : [];
    while (this._lanes.children.length > shown.length) {
      this._lanes.lastElementChild?.remove();
    }
    this._lanes.hidden = !shown.length;
    shown.forEach((node, index) => {
      const progress = state?.nodes[node];
      let item = this._lanes.children[index] as HTMLElement | undefined;
      if (!item) {
        item = element('li', { class: 'wardian-Badge-lane' });
        this._lanes.append(item);
      }
      const now = state ? stateOf(state, node) : '';
      setText(item, `${node} ${words(now, progress, this._trans)}`);
      item.dataset['state'] = now;
      item.title = progress?.reason ?? '';
      item.style.setProperty('--wardian-color', `var(--wardian-color-${colors.get(node) ?? 0})`);
    });
  }

  private _drawProblem({ problem, canCreate }: IShown): void {
    const key = `${problem}${canCreate}`;
    if (this._problem.dataset['key'] === key) {
      return;
    }
    this._problem.dataset['key'] = key;
    this._problem.replaceChildren();
    if (problem) {
      const trans = this._trans;
      this._problem.append(
        element('span', { class: 'wardian-Badge-message' }, problem),
        ...(canCreate ? [button('wardian-Badge-act', trans.__('Create'), () => this._actions.create())] : []),
        button('wardian-Badge-act', trans.__('Rebind…'), () => this._actions.choose(this._where)),
        button('wardian-Badge-act', trans.__('Run at home'), () => this._actions.runAtHome())
      );
    }
  }

  /** Bring up to date whether it would end in time. */
  drawLate({ late, canExtend }: IShown): void {
    const key = `${late}${canExtend}`;
    if (this._late.dataset['key'] !== key) {
      this._late.dataset['key'] = key;
      const extend = button('wardian-Badge-act', this._trans.__('Extend by 1 h'), () => this._actions.extend());
      this._late.replaceChildren(
        ...(late ? [element('span', { class: 'wardian-Badge-message' }, late), ...(canExtend ? [extend] : [])] : [])
      );
    }
  }
}

function setText(node: HTMLElement, text: string): void {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

function textOf(part: Node | string): string {
  return typeof part === 'string' ? part : (part.textContent ?? '');
}
