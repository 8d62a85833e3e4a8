import { PathExt } from '@jupyterlab/coreutils';
import type { FileBrowser } from '@jupyterlab/filebrowser';
import { type Contents, ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';

/** What a drag of items of JupyterLab's file browser carries: their paths. */
export const CONTENTS = 'application/x-jupyter-icontents';
/** What a drag of a file of a node carries: where it is fetched from, and its name. */
export const NODE_FILE = 'application/x-wardian-file';

/** A file that can be fetched from the server. */
export interface ISource {
  url: string;
  name: string;
}

/** JupyterLab's file browser, as a place that files of nodes come from and go to. */
export class BrowserFiles {
  private _browser: FileBrowser;
  private _contents: Contents.IManager;
  private _settings: ServerConnection.ISettings;
  private _trans: TranslationBundle;

  /** failed: told of a file that was dropped and could not be taken. */
  constructor(browser: FileBrowser, settings: ServerConnection.ISettings, trans: TranslationBundle, failed: (error: unknown) => void) {
    this._browser = browser;
    this._contents = browser.model.manager.services.contents;
    this._settings = settings;
    this._trans = trans;
    browser.node.addEventListener(
      'dragover',
      event => {
        if (event.dataTransfer?.types.includes(NODE_FILE)) {
          event.preventDefault();
          event.dataTransfer.dropEffect = 'copy';
        }
      },
      true
    );
    browser.node.addEventListener(
      'drop',
      event => {
        const dropped = event.dataTransfer?.getData(NODE_FILE);
        if (dropped) {
          event.preventDefault();
          this.save(JSON.parse(dropped) as ISource).catch(failed);
        }
      },
      true
    );
  }

  /** The paths of the items that are selected. */
  get selected(): string[] {
    return [...this._browser.selectedItems()].map(item => item.path);
  }

  /** The content of one. Throws for a folder. */
  async read(path: string): Promise<File> {
    const { type } = await this._contents.get(path, { content: false });
    if (type === 'directory') {
      throw new Error(this._trans.__('%1 is a folder', path));
    }
    return this._fetch({ url: await this._contents.getDownloadUrl(path), name: PathExt.basename(path) });
  }

  /** Put a file into the folder that is shown; asks before it takes the place of another. Gives its path. */
  async save(source: ISource): Promise<string> {
    return (await this._browser.model.upload(await this._fetch(source))).path;
  }

  private async _fetch({ url, name }: ISource): Promise<File> {
    const response = await ServerConnection.makeRequest(url, {}, this._settings);
    if (!response.ok) {
      throw new ServerConnection.ResponseError(response);
    }
    return new File([await response.blob()], name);
  }
}
