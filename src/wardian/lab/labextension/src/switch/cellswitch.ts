import type { CodeCell } from '@jupyterlab/cells';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { IDisposable } from '@lumino/disposable';

import { bindingOf, type IBinding } from '../binding/binding';
import { type IPick, pick } from '../binding/selectors';
import type { Watch } from '../watch/watch';
import { moment } from '../panel/names';
import { Badge, type IActions, type IShown } from './badge';
import { stripes } from './dom';
import { Lanes } from './lanes';
import { isGoing, seconds } from './states';

/** What the switches of one notebook have in common. */
export interface INotebook {
  readonly watch: Watch;
  readonly colors: Map<string, number>;
  readonly trans: TranslationBundle;
  canCreate(): boolean;
  canExtend(): boolean;
  /** Which cells would not end in time may be others now. */
  renewLate(): void;
  actions(cell: CodeCell): Omit<IActions, 'toggleLanes'>;
  /** The MIME type that the editor of a cell in this language has, or null for that of the notebook. */
  mimeType(language: string): string | null;
}

/** One code cell: its edge, its badge and its editor's language follow its binding and its state. */
export class CellSwitch implements IDisposable {
  readonly cell: CodeCell;
  binding: IBinding;
  pick: IPick = { nodes: [], unknown: [] };
  isDisposed = false;
  private _notebook: INotebook;
  private _badge: Badge;
  private _lanes: Lanes;
  private _mimeType: string | null = null;

  constructor(cell: CodeCell, notebook: INotebook) {
    this.cell = cell;
    this._notebook = notebook;
    this.binding = bindingOf(cell.model, notebook.watch.sticky);
    this._badge = new Badge({ ...notebook.actions(cell), toggleLanes: () => this.toggleLanes() }, notebook.trans);
    this._lanes = new Lanes(
      cell,
      () => notebook.watch.environment?.nodes ?? [],
      () => notebook.watch.cell(cell.model.id),
      notebook.trans
    );
    cell.model.contentChanged.connect(this.update, this);
    cell.model.metadataChanged.connect(this.update, this);
    cell.model.mimeTypeChanged.connect(this._highlight, this);
    cell.disposed.connect(() => this.dispose());
    void cell.ready.then(() => this._place());
    this._place();
    this.update();
  }

  /** What the picker opens beside. */
  get anchor(): HTMLElement {
    return this._badge.anchor.isConnected ? this._badge.anchor : this.cell.node;
  }

  /** The last moment, in seconds since the epoch, at which it can begin and end before the lease does; null where that is not known. */
  get latest(): number | null {
    const { environment } = this._notebook.watch;
    const took = this._notebook.watch.duration(this.cell.model.id);
    const ends = environment?.lease?.at_end === 'down' && this.pick.nodes.length && !environment.lacking;
    return ends && took !== undefined ? environment.lease!.end - took : null;
  }

  /** That it would not end before the lease does; empty where it would. */
  get late(): string {
    const { trans, watch } = this._notebook;
    if (this.latest === null || this.isGoing || this.latest > Date.now() / 1000) {
      return '';
    }
    const took = seconds(watch.duration(this.cell.model.id)!);
    return trans.__('took %1 last time, and the environment is torn down at %2', took, moment(watch.environment!.lease!.end));
  }

  get isGoing(): boolean {
    return isGoing(this._notebook.watch.cell(this.cell.model.id));
  }

  /** Bring everything up to date. */
  update(): void {
    if (this.isDisposed) {
      return;
    }
    const { watch, colors } = this._notebook;
    this.binding = bindingOf(this.cell.model, watch.sticky);
    const { selector } = this.binding;
    this.pick = selector === null ? { nodes: [], unknown: [] } : pick(selector, watch.environment?.nodes ?? [], watch.environment?.names);
    const shown = this._shown();
    const { node } = this.cell;
    node.dataset['wardian'] = selector === null ? 'home' : shown.problem ? 'problem' : 'nodes';
    if (this.pick.nodes.length) {
      node.style.setProperty('--wardian-edge', stripes(this.pick.nodes.map(name => colors.get(name) ?? 0)));
    } else {
      node.style.removeProperty('--wardian-edge');
    }
    this._badge.show(shown);
    this._highlight();
    this._notebook.renewLate();
  }

  /** Bring only times and states up to date. */
  tick(): void {
    this._badge.tick(this._shown());
    if (this._lanes.shown) {
      this._lanes.update();
    }
  }

  /** Say, or say no longer, that it would not end in time: how long it takes may be another by now. */
  renewLate(): void {
    this._badge.drawLate(this._shown());
    this._notebook.renewLate();
  }

  /** Show or hide the output by node; says whether it is shown now. */
  toggleLanes(): boolean {
    if (this._lanes.shown) {
      this._lanes.hide();
    } else {
      this._lanes.show();
    }
    return this._lanes.shown;
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.isDisposed = true;
    this._badge.node.remove();
    this._lanes.hide();
    delete this.cell.node.dataset['wardian'];
    this.cell.node.style.removeProperty('--wardian-edge');
    if (!this.cell.isDisposed) {
      this.cell.model.contentChanged.disconnect(this.update, this);
      this.cell.model.metadataChanged.disconnect(this.update, this);
      this.cell.model.mimeTypeChanged.disconnect(this._highlight, this);
    }
  }

  private _shown(): IShown {
    const { watch, colors } = this._notebook;
    return {
      binding: this.binding,
      pick: this.pick,
      colors,
      state: watch.cell(this.cell.model.id),
      problem: this._problem(),
      late: this.late,
      canExtend: this._notebook.canExtend(),
      canCreate: this._notebook.canCreate()
    };
  }

  /** Why the cell could not run where it is bound; empty where it could, and where that is not known. */
  private _problem(): string {
    const { trans, watch } = this._notebook;
    const { environment } = watch;
    if (this.binding.selector === null || !environment) {
      return '';
    }
    if (environment.lacking) {
      return trans.__('the environment is not up');
    }
    if (this.pick.unknown.length) {
      return trans.__('no such node: %1', this.pick.unknown.map(name => name || trans.__('selector')).join(', '));
    }
    return this.pick.nodes.length ? '' : trans.__('this picks no node');
  }

  /** Cells that have not been scrolled to have no header yet. */
  private _place(): void {
    const header = this.cell.node.querySelector(':scope > .jp-CellHeader');
    if (!this.isDisposed && header && this._badge.node.parentElement !== header) {
      header.append(this._badge.node);
    }
  }

  /** The notebook gives all its editors one language, and gives it again when it likes. */
  private _highlight(): void {
    const { model } = this.cell;
    const wanted = this.binding.selector === null ? null : this._notebook.mimeType(this.binding.language);
    if (wanted !== null && model.mimeType !== wanted) {
      this._mimeType ??= model.mimeType;
      model.mimeType = wanted;
    } else if (wanted === null && this._mimeType !== null) {
      model.mimeType = this._mimeType;
      this._mimeType = null;
    }
  }
}
