import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { Token } from '@lumino/coreutils';
import { type ISignal, Signal } from '@lumino/signaling';

import { onWardianKernel } from '../kernel/kernels';
import { Watch } from './watch';

/** What the Wardian kernels of open notebooks tell. */
export interface IWatches {
  /** That of a notebook's kernel; undefined where it has no Wardian kernel. */
  of(panel: NotebookPanel): Watch | undefined;
  /** Ask all kernels what there is, now. */
  refresh(): void;
  /** Emitted for every notebook that has, or comes to have, a Wardian kernel. */
  readonly added: ISignal<IWatches, { panel: NotebookPanel; watch: Watch }>;
}

export const IWatches = new Token<IWatches>('wardian:IWatches', 'What the Wardian kernels of open notebooks tell of nodes and cells.');

class Watches implements IWatches {
  readonly added = new Signal<this, { panel: NotebookPanel; watch: Watch }>(this);
  private _watches = new WeakMap<NotebookPanel, Watch>();

  private _tracker: INotebookTracker;

  constructor(tracker: INotebookTracker) {
    this._tracker = tracker;
    onWardianKernel(tracker, (panel, kernel) => {
      this._watches.get(panel)?.dispose();
      const watch = new Watch(kernel);
      this._watches.set(panel, watch);
      panel.disposed.connect(() => watch.dispose());
      this.added.emit({ panel, watch });
      void watch.refresh();
    });
  }

  of(panel: NotebookPanel): Watch | undefined {
    const watch = this._watches.get(panel);
    return watch?.isDisposed ? undefined : watch;
  }

  refresh(): void {
    this._tracker.forEach(panel => void this.of(panel)?.refresh());
  }
}

export const watch: JupyterFrontEndPlugin<IWatches> = {
  id: 'wardian:watch',
  description: 'Knows which nodes there are and how cells fare on them.',
  autoStart: true,
  requires: [INotebookTracker],
  provides: IWatches,
  activate: (_, tracker: INotebookTracker) => {
    const watches = new Watches(tracker);
    // Who comes back to a notebook may have changed the environment meanwhile, in a terminal say.
    const look = (): void => void (tracker.currentWidget && watches.of(tracker.currentWidget)?.refresh());
    tracker.currentChanged.connect(look);
    window.addEventListener('focus', look);
    return watches;
  }
};
