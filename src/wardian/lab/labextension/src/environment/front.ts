import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PathExt } from '@jupyterlab/coreutils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { FileBrowser } from '@jupyterlab/filebrowser';
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

  /** What the server says where they cannot be looked for. */
  trouble = '';

  private _server: Server;
  private _contents: Contents.IManager;
  private _followed = '';

  constructor(app: JupyterFrontEnd, server: Server, browser: FileBrowser | null) {
    this._server = server;
    this._contents = app.serviceManager.contents;
    const model = browser?.model;
    app.shell.currentChanged?.connect((_, { newValue }) => this._enter(folderOf(newValue)));
    model?.pathChanged.connect(() => {
      if (folderOf(app.shell.currentWidget) === null) {
        this._enter(model.path);
      }
    });
    this._contents.fileChanged.connect((_, change) => {
      if ([change.oldValue, change.newValue].some(value => value?.path && PathExt.basename(value.path) === FILE)) {
        void this.refresh();
      }
    });
    void app.restored.then(() => {
      this._enter(folderOf(app.shell.currentWidget) ?? model?.path ?? '');
      void this.refresh();
    });
  }

  /** Show another environment, until something with an experiment of its own comes to the front. */
  choose(path: string, instance: string): void {
    if (this.live?.path === path && this.live.instance === instance) {
      return;
    }
    this.live?.dispose();
    this.live = new Live(this._server, path, instance);
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

  private _enter(folder: string | null): void {
    const local = folder === null ? null : this._contents.localPath(folder);
    if (local === null || local === this.folder) {
      return;
    }
    this.folder = local;
    this._follow();
    this.changed.emit();
    void this.refresh();
  }

  /** Show what belongs to the folder in front. */
  private _follow(): void {
    const found = this._nearest(this.folder);
    if (found && found !== this._followed) {
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

/** The folder of a document; null for what is none. */
function folderOf(widget: Widget | null): string | null {
  const context = (widget as { context?: DocumentRegistry.Context } | null)?.context;
  return context ? PathExt.dirname(context.path) : null;
}
