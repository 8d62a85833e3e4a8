import type { CodeCellModel } from '@jupyterlab/cells';
import { URLExt } from '@jupyterlab/coreutils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { type Kernel, ServerConnection, type Session } from '@jupyterlab/services';

/** From one attempt to reach the server to the next, milliseconds: at first, and at most. */
const FIRST_DELAY = 100;
const LONGEST_DELAY = 1000;

/**
 * Starts a kernel where a server took that of running cells with it: once there is another server. Nodes have gone on with the cells, and the
 * new kernel tells what they do.
 */
export class Returning {
  private _panel: NotebookPanel;
  private _kernel: Kernel.IKernelConnection;
  private _sessions: Session.IManager;
  private _server: Promise<string | null>;

  constructor(panel: NotebookPanel, kernel: Kernel.IKernelConnection, sessions: Session.IManager) {
    this._panel = panel;
    this._kernel = kernel;
    this._sessions = sessions;
    this._server = this._started();
    kernel.connectionStatusChanged.connect(this._changed, this);
  }

  private _changed(_: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    const cells = this._panel.isDisposed ? [] : [...(this._panel.content.model?.cells ?? [])];
    if (status === 'connecting' && cells.some(cell => (cell as CodeCellModel).executionState === 'running')) {
      void this._return();
    }
  }

  private async _return(): Promise<void> {
    const { name } = this._kernel;
    const before = await this._server;
    for (let delay = FIRST_DELAY; ; delay = Math.min(2 * delay, LONGEST_DELAY)) {
      const now = await this._started();
      if (this._panel.isDisposed || this._kernel.connectionStatus === 'connected' || (now && now === before)) {
        return;
      }
      if (now) {
        break;
      }
      await new Promise(resolve => window.setTimeout(resolve, delay));
    }
    // The page's sessions end here, which are that server's.
    await this._sessions.refreshRunning();
    if (!this._panel.isDisposed && !this._panel.sessionContext.session) {
      await this._panel.sessionContext.changeKernel({ name });
    }
  }

  /** When the server was started; null where it does not answer. */
  private async _started(): Promise<string | null> {
    const settings = this._kernel.serverSettings;
    try {
      const response = await ServerConnection.makeRequest(URLExt.join(settings.baseUrl, 'api/status'), {}, settings);
      return response.ok ? ((await response.json()) as { started: string }).started : null;
    } catch {
      return null;
    }
  }
}
