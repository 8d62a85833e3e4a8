import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { HERE, type IBound } from '../binding/binding';
import { pick } from '../binding/selectors';
import type { INode } from '../watch/watch';
import { button, element, stripes } from './dom';

/** What a picker shows, and whom it tells. `title` names what will happen. */
export interface IPicking {
  title: string;
  /** What speaks against running it, or nothing. */
  warning: string;
  selector: string | null;
  language: string;
  nodes: readonly INode[];
  names: readonly string[];
  colors: Map<string, number>;
  languages: readonly string[];
  /** Home is an option, and so are several at once. */
  done(bound: IBound): void;
  trans: TranslationBundle;
}

interface IOption {
  selector: string;
  detail: string;
  picks: string[];
}

let count = 0;

/** Chooses where a cell runs: type to filter, arrows and Enter for one, Space for several. */
export class Picker extends Widget {
  private _picking: IPicking;
  private _input: HTMLInputElement;
  private _list: HTMLElement;
  private _language: HTMLSelectElement;
  private _note: HTMLElement;
  private _options: IOption[];
  private _shown: IOption[] = [];
  private _checked: string[] = [];
  private _touched = false;
  private _active = 0;
  private _id = `wardian-picker-${(count += 1)}`;
  private _before = document.activeElement;

  constructor(picking: IPicking) {
    super();
    const { trans } = picking;
    this._picking = picking;
    this.addClass('wardian-Picker');
    this.node.setAttribute('role', 'dialog');
    this.node.setAttribute('aria-label', picking.title);
    this._options = optionsOf(picking);
    const known = picking.selector?.split(',') ?? [];
    this._checked = known.length > 1 && known.every(part => this._options.some(option => option.selector === part)) ? known : [];
    this._input = element('input', {
      class: 'jp-mod-styled wardian-Picker-filter',
      type: 'text',
      role: 'combobox',
      spellcheck: 'false',
      autocomplete: 'off',
      placeholder: trans.__('Node, group, role or selector'),
      'aria-label': picking.title,
      'aria-controls': this._id,
      'aria-expanded': 'true',
      'aria-autocomplete': 'list'
    });
    this._list = element('ul', { class: 'wardian-Picker-list', id: this._id, role: 'listbox', 'aria-multiselectable': 'true' });
    this._list.setAttribute('aria-label', picking.title);
    this._language = element('select', { class: 'wardian-Picker-language', 'aria-label': trans.__('Language') });
    for (const language of new Set(['python', 'bash', ...picking.languages, picking.language])) {
      this._language.append(new Option(language, language, false, language === picking.language));
    }
    this._note = element('span', { class: 'wardian-Picker-note' }, trans.__('Enter: choose · Space: several · Esc: cancel'));
    const apply = button('wardian-Picker-apply', trans.__('Choose'), () => this._choose());
    const warning = picking.warning ? [element('p', { class: 'wardian-Picker-warning' }, picking.warning)] : [];
    this.node.append(
      this._input,
      ...warning,
      this._list,
      element('div', { class: 'wardian-Picker-foot' }, this._language, apply, this._note)
    );
    this._draw(
      Math.max(
        0,
        this._options.findIndex(option => option.selector === (picking.selector ?? HERE))
      )
    );
  }

  /** Show it below what it belongs to. */
  open(anchor: HTMLElement): void {
    Widget.attach(this, document.body);
    const at = anchor.getBoundingClientRect();
    const size = this.node.getBoundingClientRect();
    const below = at.bottom + size.height <= window.innerHeight;
    this.node.style.top = `${Math.max(0, below ? at.bottom : at.top - size.height)}px`;
    this.node.style.left = `${Math.max(0, Math.min(at.left, window.innerWidth - size.width))}px`;
    this._input.focus();
    requestAnimationFrame(() => {
      // the command palette gives the focus back to where it was as it closes
      if (!this.isDisposed && !this.node.contains(document.activeElement)) {
        this._before = document.activeElement;
        this._input.focus();
      }
    });
  }

  /** There are other nodes now. */
  renew(nodes: readonly INode[], names: readonly string[], colors: Map<string, number>): void {
    if (JSON.stringify([nodes, names]) !== JSON.stringify([this._picking.nodes, this._picking.names])) {
      // the cell's own node may not have been known
      const own = this._picking.selector ?? HERE;
      const known = this._options.some(option => option.selector === own);
      const active = known ? this._shown[this._active]?.selector : own;
      this._picking = { ...this._picking, nodes, names, colors };
      this._options = optionsOf(this._picking);
      this._draw(0);
      this._activate(this._shown.findIndex(option => option.selector === active));
    }
  }

  handleEvent(event: Event): void {
    if (event.type === 'keydown') {
      this._keyDown(event as KeyboardEvent);
    } else if (event.type === 'input') {
      this._draw(0);
    } else if (event.type === 'click') {
      this._clicked(event as MouseEvent);
    } else if (event.type === 'pointerdown' && !this.node.contains(event.target as Node)) {
      this._close(false);
    }
  }

  protected override onAfterAttach(): void {
    for (const type of ['keydown', 'click']) {
      this.node.addEventListener(type, this);
    }
    this._input.addEventListener('input', this);
    document.addEventListener('pointerdown', this, true);
  }

  protected override onBeforeDetach(): void {
    document.removeEventListener('pointerdown', this, true);
  }

  private _keyDown(event: KeyboardEvent): void {
    const filtering = event.target === this._input;
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
    const step = steps[event.key];
    // Whatever the notebook would do with the key is not meant.
    event.stopPropagation();
    if (event.key === 'Escape') {
      this._close();
    } else if (event.key === 'Enter' && !(event.target instanceof HTMLButtonElement)) {
      this._choose();
    } else if (filtering && event.key === ' ') {
      this._toggle(this._shown[this._active]);
    } else if (filtering && step !== undefined) {
      this._activate(Math.min(Math.max(this._active + step, 0), this._shown.length - 1));
    } else if (event.key === 'Tab') {
      this._cycle(event);
      return;
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Keep the focus in here. */
  private _cycle(event: KeyboardEvent): void {
    const stops = [...this.node.querySelectorAll<HTMLElement>('input, select, button')];
    const edge = event.shiftKey ? stops[0] : stops[stops.length - 1];
    if (event.target === edge) {
      (event.shiftKey ? stops[stops.length - 1] : stops[0])?.focus();
      event.preventDefault();
    }
  }

  private _clicked(event: MouseEvent): void {
    const target = event.target as HTMLElement;
    const item = target.closest<HTMLElement>('[role=option]');
    const option = item ? this._shown[Number(item.dataset['index'])] : undefined;
    if (!option) {
      return;
    }
    if (target.closest('.wardian-Picker-check') || event.ctrlKey || event.metaKey || event.shiftKey) {
      this._toggle(option);
      this._input.focus();
    } else {
      this._finish(option.selector);
    }
  }

  private _toggle(option: IOption | undefined): void {
    if (!option || option.selector === HERE) {
      return;
    }
    const { selector } = option;
    this._touched = true;
    this._checked = this._checked.includes(selector) ? this._checked.filter(known => known !== selector) : [...this._checked, selector];
    this._input.value = '';
    this._draw(this._options.findIndex(known => known.selector === selector));
  }

  private _choose(): void {
    const typed = this._input.value.trim() ? this._shown[this._active] : undefined;
    if (typed) {
      // What was marked before this picker opened is what it takes the place of.
      this._finish([...new Set([...(this._touched ? this._checked : []), typed.selector])].join(','));
    } else if (this._checked.length) {
      this._finish(this._checked.join(','));
    } else {
      this._finish(this._shown[this._active]?.selector ?? HERE);
    }
  }

  private _finish(selector: string): void {
    const language = this._language.value;
    this._close();
    this._picking.done(selector === HERE ? { on: HERE } : { on: selector, lang: language });
  }

  private _close(refocus = true): void {
    if (!this.isDisposed) {
      this.dispose();
      if (refocus && this._before instanceof HTMLElement) {
        this._before.focus();
      }
    }
  }

  private _draw(active: number): void {
    const typed = this._input.value.trim();
    const wanted = typed.toLowerCase();
    const { colors } = this._picking;
    this._shown = this._options.filter(option => !wanted || option.selector.toLowerCase().includes(wanted));
    if (typed && !this._options.some(option => option.selector === typed)) {
      this._shown.push(written(typed, this._picking));
    }
    this._list.replaceChildren(...this._shown.map((option, index) => this._item(option, index, colors)));
    this._note.textContent = this._checked.length
      ? this._picking.trans.__('%1: Enter', this._checked.join(','))
      : this._picking.trans.__('Enter: choose · Space: several · Esc: cancel');
    this._activate(Math.min(active, this._shown.length - 1));
  }

  private _item(option: IOption, index: number, colors: Map<string, number>): HTMLElement {
    const checked = this._checked.includes(option.selector);
    const mark = element('span', { class: 'wardian-Picker-mark', 'aria-hidden': 'true' });
    if (option.picks.length) {
      mark.style.background = stripes(option.picks.map(node => colors.get(node) ?? 0));
    }
    return element(
      'li',
      {
        class: 'wardian-Picker-option',
        role: 'option',
        id: `${this._id}-${index}`,
        'data-index': `${index}`,
        'aria-selected': `${checked}`
      },
      element('span', { class: 'wardian-Picker-check', 'aria-hidden': 'true' }, option.selector === HERE ? '' : checked ? '☑' : '☐'),
      mark,
      element('span', { class: 'wardian-Picker-name' }, option.selector),
      element('span', { class: 'wardian-Picker-detail' }, option.detail)
    );
  }

  private _activate(index: number): void {
    this._list.children[this._active]?.classList.remove('wardian-mod-active');
    this._active = Math.max(0, index);
    const item = this._list.children[this._active];
    item?.classList.add('wardian-mod-active');
    item?.scrollIntoView({ block: 'nearest' });
    this._input.setAttribute('aria-activedescendant', item?.id ?? '');
  }
}

/** Home, then single nodes and groups, roles, all, members of groups, and what has no nodes. A node's number is that of its shortcut. */
function optionsOf({ nodes, names, trans }: IPicking): IOption[] {
  const options: IOption[] = [{ selector: HERE, detail: trans.__('home'), picks: [] }];
  const numbers = new Map(nodes.map((node, index) => [node.name, index + 1]));
  const state = (node: INode): string => {
    const number = numbers.get(node.name) ?? 0;
    return [...(number < 10 ? [trans.__('Ctrl %1', number)] : []), ...(node.state === 'ready' ? [] : [node.state])].join(' · ');
  };
  const members = nodes.filter(node => node.index !== null);
  for (const group of new Set(nodes.map(node => node.group))) {
    const within = nodes.filter(node => node.group === group);
    const [first] = within;
    const detail = first && first.index === null ? state(first) : trans._n('group of %1', 'group of %1', within.length);
    options.push({ selector: group, detail, picks: within.map(node => node.name) });
  }
  for (const role of new Set(nodes.flatMap(node => node.roles))) {
    const within = nodes.filter(node => node.roles.includes(role));
    options.push({
      selector: role,
      detail: trans._n('role of %1 node', 'role of %1 nodes', within.length),
      picks: within.map(node => node.name)
    });
  }
  if (nodes.length > 1) {
    options.push({ selector: 'all', detail: trans._n('%1 node', '%1 nodes', nodes.length), picks: nodes.map(node => node.name) });
  }
  const empty = [...new Set(names)].filter(name => !options.some(option => option.selector === name));
  return [
    ...options,
    ...members.map(node => ({ selector: node.name, detail: state(node), picks: [node.name] })),
    ...empty.map(name => ({ selector: name, detail: trans.__('no nodes'), picks: [] }))
  ];
}

/** What was typed, as an option of its own. */
function written(typed: string, { nodes, names, trans }: IPicking): IOption {
  const found = pick(typed, nodes, names);
  const detail = found.unknown.length
    ? trans.__('no such node: %1', found.unknown.join(', '))
    : trans._n('%1 node', '%1 nodes', found.nodes.length);
  return { selector: typed, detail, picks: found.nodes };
}
