import type { CodeCell, ICellModel } from '@jupyterlab/cells';
import type { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { type CellList, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { IObservableList } from '@jupyterlab/observables';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { JSONObject } from '@lumino/coreutils';
import type { IDisposable } from '@lumino/disposable';

import { bind, type IBound, HERE, unbind } from '../binding/binding';
import { colorsOf } from '../binding/colors';
import { tellWhere } from '../kernel/requests';
import type { Change, Watch } from '../watch/watch';
import type { IActions } from './badge';
import { CellSwitch, type INotebook } from './cellswitch';
import { inherit } from './inherit';
import type { ILateCell } from './late';
import { keepLine } from './split';
import { Picker } from './picker';
import { runOnce } from './running';

/** What the user may set. */
export interface ISettings {
  inherit: boolean;
}

/** What the notebook needs of the application. */
export interface IApplication {
  readonly trans: TranslationBundle;
  readonly settings: ISettings;
  readonly languages: IEditorLanguageRegistry | null;
  /** Whether something here can grow the environment, and the call to do so. */
  canCreate(): boolean;
  create(panel: NotebookPanel, selector: string | null): void;
  /** The same for holding it longer. */
  canExtend(): boolean;
  extend(panel: NotebookPanel): void;
  /** Which cells would not end in time may be others now. */
  renewLate(): void;
}

/** MIME types of languages before a kernel has told its own. */
const MIME_TYPES: Record<string, string> = { bash: 'text/x-sh', sh: 'text/x-sh', ir: 'text/x-rsrc', R: 'text/x-rsrc' };
const SECOND = 1000;

/** All code cells of one notebook, as long as it has this kernel. */
export class NotebookSwitch implements INotebook, IDisposable {
  readonly panel: NotebookPanel;
  readonly watch: Watch;
  colors = new Map<string, number>();
  isDisposed = false;
  private _application: IApplication;
  private _switches = new Map<ICellModel, CellSwitch>();
  private _timer: number | undefined;
  private _late: number | undefined;
  private _cells: CellList | undefined;

  constructor(panel: NotebookPanel, watch: Watch, application: IApplication) {
    this.panel = panel;
    this.watch = watch;
    this._application = application;
    panel.content.addClass('wardian-Notebook');
    this._cells = panel.content.model?.cells;
    this._cells?.changed.connect(this._cellsChanged, this);
    watch.changed.connect(this._changed, this);
    panel.disposed.connect(this.dispose, this);
    panel.sessionContext.kernelChanged.connect(this.dispose, this);
    // The connection is this notebook's own, and it is the active cell that asks.
    tellWhere(watch.kernel, () => (panel.content.activeCell?.model.getMetadata('wardian') as JSONObject | undefined) ?? null);
    this._changed(watch, 'environment');
    this._sync();
  }

  get trans(): TranslationBundle {
    return this._application.trans;
  }

  /** The switches of the code cells, from top to bottom. */
  get switches(): CellSwitch[] {
    return this.panel.content.widgets.flatMap(cell => this._switches.get(cell.model) ?? []);
  }

  /** The cells that would not end before the lease does. */
  get late(): ILateCell[] {
    const found = this.isDisposed ? [] : this.switches.filter(one => one.late);
    return found.map(({ cell: { model }, late }) => ({ cell: model.id, source: firstLine(model.sharedModel.getSource()), why: late }));
  }

  renewLate(): void {
    this._application.renewLate();
  }

  /** Those of the cells that are selected, or of the active one. */
  get selected(): CellSwitch[] {
    const { content } = this.panel;
    return this.switches.filter(one => content.isSelectedOrActive(one.cell));
  }

  canCreate(): boolean {
    return this._application.canCreate();
  }

  canExtend(): boolean {
    return this._application.canExtend();
  }

  actions(cell: CodeCell): Omit<IActions, 'toggleLanes'> {
    return {
      choose: anchor => this.choose(anchor, [cell]),
      create: () => this._application.create(this.panel, this._switches.get(cell.model)?.binding.selector ?? null),
      extend: () => this._application.extend(this.panel),
      runAtHome: () => void runOnce(this.panel, cell, { on: HERE })
    };
  }

  mimeType(language: string): string | null {
    if (language === 'python') {
      return null;
    }
    const told = this.watch.environment?.languages[language];
    const mimeType = told?.mimetype ?? MIME_TYPES[language] ?? '';
    const registry = this._application.languages;
    const found = registry?.findByMIME(mimeType) ?? registry?.findByName(told?.name ?? language);
    const known = found?.mime ?? (mimeType || null);
    return typeof known === 'string' ? known : (known?.[0] ?? null);
  }

  /** Let the user choose where cells run. */
  choose(anchor: HTMLElement, cells: readonly CodeCell[]): void {
    this.pick(anchor, this.trans.__('Where this cell runs'), bound => this.bind(cells, bound), cells[0]);
  }

  /** Let the user choose nodes for something. */
  pick(anchor: HTMLElement, title: string, done: (bound: IBound) => void, cell?: CodeCell): void {
    const binding = cell && this._switches.get(cell.model)?.binding;
    const picker = new Picker({
      title,
      warning: (cell && this._switches.get(cell.model)?.late) ?? '',
      selector: binding?.selector ?? null,
      language: binding?.language ?? 'python',
      nodes: this.watch.environment?.nodes ?? [],
      names: this.watch.environment?.names ?? [],
      colors: this.colors,
      languages: Object.keys(this.watch.environment?.languages ?? {}),
      trans: this.trans,
      done
    });
    const renew = (): void => picker.renew(this.watch.environment?.nodes ?? [], this.watch.environment?.names ?? [], this.colors);
    this.watch.changed.connect(renew);
    picker.disposed.connect(() => this.watch.changed.disconnect(renew));
    picker.open(anchor);
    // What was read may be old by now.
    void this.watch.refresh();
  }

  /** Bind cells; `here` puts them back home. */
  bind(cells: readonly CodeCell[], bound: IBound): void {
    for (const { model } of cells) {
      if (bound.on === HERE) {
        unbind(model, this.watch.sticky);
      } else {
        bind(model, bound);
      }
    }
  }

  /** Run all cells that are bound to a node, in order. */
  async runNode(name: string): Promise<void> {
    const cells = this.switches.filter(one => one.pick.nodes.includes(name)).map(one => one.cell);
    const { content, sessionContext } = this.panel;
    await NotebookActions.runCells(content, cells, sessionContext);
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.isDisposed = true;
    window.clearInterval(this._timer);
    window.clearTimeout(this._late);
    this._cells?.changed.disconnect(this._cellsChanged, this);
    this.watch.changed.disconnect(this._changed, this);
    this._switches.forEach(one => one.dispose());
    if (!this.panel.isDisposed) {
      this.panel.sessionContext.kernelChanged.disconnect(this.dispose, this);
      this.panel.content.removeClass('wardian-Notebook');
    }
  }

  private _cellsChanged(_: CellList, change: IObservableList.IChangedArgs<ICellModel>): void {
    // The notebook's own widgets come first, whoever was connected first.
    void Promise.resolve().then(() => {
      if (!this.isDisposed) {
        this._sync();
      }
    });
    const { content } = this.panel;
    // Changes to a document within a change of it would be one step of undo with it, and come in no certain order.
    const neighbours = new Map([...this._switches].map(([model, one]) => [model, one.binding]));
    void Promise.resolve().then(() => keepLine(content, change, model => neighbours.get(model)));
    if (this._application.settings.inherit) {
      const active = content.activeCell?.model ?? null;
      void Promise.resolve().then(() => inherit(content, change, active, model => neighbours.get(model)));
    }
  }

  private _sync(): void {
    const { widgets } = this.panel.content;
    const there = new Set(widgets.map(cell => cell.model));
    for (const [model, one] of this._switches) {
      if (!there.has(model) || one.isDisposed) {
        one.dispose();
        this._switches.delete(model);
      }
    }
    for (const cell of widgets) {
      if (cell.model.type === 'code' && !this._switches.has(cell.model)) {
        this._switches.set(cell.model, new CellSwitch(cell as CodeCell, this));
      }
    }
  }

  private _changed(_: Watch, change: Change): void {
    if (change === 'environment') {
      this.colors = colorsOf(this.watch.environment?.nodes ?? []);
      this._switches.forEach(one => one.update());
    } else {
      const ids = new Set(change.cells);
      this._switches.forEach((one, model) => {
        if (ids.has(model.id)) {
          one.tick();
          one.renewLate();
        }
      });
    }
    this._keepTime();
    this._awaitLate();
  }

  /** From some moment on a cell would not end before the lease does, and says so. */
  private _awaitLate(): void {
    const now = Date.now() / 1000;
    const moments = [...this._switches.values()].flatMap(one => one.latest ?? []).filter(latest => latest > now);
    window.clearTimeout(this._late);
    if (moments.length) {
      const update = (): void => {
        this._switches.forEach(one => one.update());
        this._awaitLate();
      };
      // longer than that a timer cannot wait
      this._late = window.setTimeout(update, Math.min(1000 * (Math.min(...moments) - now) + 1, 2 ** 31 - 1));
    }
  }

  /** While a cell runs its time goes on. */
  private _keepTime(): void {
    const going = [...this._switches.values()].some(one => one.isGoing);
    if (!going) {
      window.clearInterval(this._timer);
      this._timer = undefined;
    }
    if (going && this._timer === undefined) {
      this._timer = window.setInterval(() => this._switches.forEach(one => one.isGoing && one.tick()), SECOND);
    }
  }
}

/** The first line of a cell that says what it does, rather than where. */
function firstLine(source: string): string {
  const lines = source.split('\n').filter(line => line.trim());
  return lines.find(line => !line.startsWith('%%on')) ?? lines[0] ?? '';
}
