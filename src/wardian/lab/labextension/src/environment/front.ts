import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PathExt } from '@jupyterlab/coreutils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { FileBrowser } from '@jupyterlab/filebrowser';
import type { INotebookModel } from '@jupyterlab/notebook';
import type { Contents } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';

import { Live } from './live';
import type { Server } from './server';
import type { IExperiment } from './types';

export const FILE = 'experiment.yaml';

/** The experiment of the notebook, or of the folder, that is in front, and its environment. */
export class Front {
  readonly changed = new Signal<this, void>(this);
  /** Those below the server's root. */
  experiments: readonly IExperiment[] = [];
  /** The environment that is shown; null where there is no experiment. */
  live: Live | null = null;
  /** The folder that is in front. */
  folder = '';
  /** Whether the experiments have been looked for. */
  known = false;

  /** Whether what is shown stays, whatever comes to the front. */
  pinned = false;
  /** What the server says where they cannot be looked for. */
  trouble = '';

  private _server: Server;
  private _contents: Contents.IManager;
  private _document = '';
  private _named: string | null = null;
  private _followed = '';

  constructor(app: JupyterFrontEnd, server: Server, browser: FileBrowser | null) {
    this._server = server;
    this._contents = app.serviceManager.contents;
    const model = browser?.model;
    app.shell.currentChanged?.connect((_, { newValue }) => this._enter(newValue));
    model?.pathChanged.connect(() => {
      if (!contextOf(app.shell.currentWidget)) {
        this._document = '';
        this._come(model.path, null);
      }
    });
    this._contents.fileChanged.connect((_, change) => {
      if ([change.oldValue, change.newValue].some(value => value?.path && PathExt.basename(value.path) === FILE)) {
        void this.refresh();
      }
    });
    void app.restored.then(() => {
      if (contextOf(app.shell.currentWidget)) {
        this._enter(app.shell.currentWidget);
      } else {
        this._come(model?.path ?? '', null);
      }
      void this.refresh();
    });
  }

  /** Show another environment, until another document with an experiment of its own comes to the front, unless it is pinned. */
  choose(path: string, instance: string): void {
    if (this.live?.path === path && this.live.instance === instance) {
      return;
    }
    this.live?.dispose();
    this.live = new Live(this._server, path, instance);
    this.changed.emit();
  }

  /** Let what is shown stay, or go again with what comes to the front. */
  pin(pinned: boolean): void {
    this.pinned = pinned;
    if (!pinned) {
      this._followed = '';
      this._follow();
    }
    this.changed.emit();
  }

  /** The experiment file of a notebook; null where there is none. named: the one that it names. */
  experimentOf(notebook: string, named?: string): string | null {
    const folder = PathExt.dirname(this._contents.localPath(notebook));
    return named ? PathExt.join(folder, named) : this._nearest(folder);
  }

  /** Look for experiments again. */
  async refresh(): Promise<void> {
    try {
      this.experiments = await this._find();
      this.trouble = '';
      this._follow();
    } catch (error) {
      this.trouble = String(error instanceof Error ? error.message : error);
    }
    this.known = true;
    this.changed.emit();
  }

  private async _find(): Promise<IExperiment[]> {
    const { experiments, complete } = await this._server.get<{ experiments: IExperiment[]; complete: boolean }>('experiments');
    if (!complete && this.folder) {
      const near = await this._server.get<{ experiments: IExperiment[] }>('experiments', { path: this.folder });
      const paths = new Set(experiments.map(item => item.path));
      experiments.push(...near.experiments.filter(item => !paths.has(item.path)));
    }
    return experiments;
  }

  /** Go with what comes to the front, where that is another document than before. */
  private _enter(widget: Widget | null): void {
    const context = contextOf(widget);
    if (!context || context.path === this._document) {
      return;
    }
    const { path } = context;
    this._document = path;
    // which experiment it names is known once it is loaded
    void context.ready.then(() => {
      if (this._document === path) {
        this._followed = '';
        const named = namedBy(context.model);
        this._come(PathExt.dirname(path), named ? this.experimentOf(path, named) : null);
      }
    });
  }

  private _come(folder: string, named: string | null): void {
    this.folder = this._contents.localPath(folder);
    this._named = named;
    this._follow();
    this.changed.emit();
    void this.refresh();
  }

  /** Show what belongs to what is in front. */
  private _follow(): void {
    const found = this._named ?? this._nearest(this.folder);
    if (found && found !== this._followed && !(this.pinned && this.live)) {
      this._followed = found;
      this.choose(found, 'default');
    }
  }

  /** The experiment file of a folder, or of the nearest folder above that has one. */
  private _nearest(folder: string): string | null {
    for (let above = folder; ; above = PathExt.dirname(above)) {
      const path = PathExt.join(above, FILE);
      if (this.experiments.some(item => item.path === path)) {
        return path;
      }
      if (!above) {
        return null;
      }
    }
  }
}

/** That of a document; undefined for what is none. */
function contextOf(widget: Widget | null): DocumentRegistry.Context | undefined {
  return (widget as { context?: DocumentRegistry.Context } | null)?.context;
}

/** The experiment file that a notebook names in its metadata, if it names one. */
export function namedBy(model: DocumentRegistry.IModel): string | undefined {
  const told = (model as Partial<INotebookModel>).getMetadata?.('wardian') as { experiment?: unknown } | undefined;
  return typeof told?.experiment === 'string' ? told.experiment : undefined;
}
