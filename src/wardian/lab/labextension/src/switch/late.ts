import type { NotebookPanel } from '@jupyterlab/notebook';
import { Token } from '@lumino/coreutils';
import { Signal } from '@lumino/signaling';

/** A cell that would not end before the lease does, with its first line, and why that is known. */
export interface ILateCell {
  cell: string;
  source: string;
  why: string;
}

/** The cells of open notebooks that would not end before the lease of their environment does. */
export class LateCells {
  /** Tells, at most once a frame, that there may be others. */
  readonly changed = new Signal<this, void>(this);
  private _notebooks = new Map<NotebookPanel, () => ILateCell[]>();
  private _frame: number | undefined;

  /** Those of all notebooks that are open. */
  all(): [NotebookPanel, ILateCell[]][] {
    return [...this._notebooks].map(([panel, of]) => [panel, of()]);
  }

  /** Have a notebook's told. */
  add(panel: NotebookPanel, of: () => ILateCell[]): void {
    if (!this._notebooks.has(panel)) {
      panel.disposed.connect(() => {
        this._notebooks.delete(panel);
        this.renew();
      });
    }
    this._notebooks.set(panel, of);
    this.renew();
  }

  /** There may be others. */
  renew(): void {
    this._frame ??= requestAnimationFrame(() => {
      this._frame = undefined;
      this.changed.emit();
    });
  }
}

export const ILateCells = new Token<LateCells>('wardian:ILateCells', 'The cells that would not end before the lease does.');
