// A JupyterLab extension in one file, without a build: cells that ran or run while no page, or another one, showed their notebook
// get all of their output, and go on showing it. The kernel keeps what it sent; docs/jupyterlab.md says when it is shown.
(() => {
  'use strict';

  let scope;

  /** The copy of a package that JupyterLab itself uses. */
  async function shared(name) {
    const versions = scope[name];
    return (await versions[Object.keys(versions)[0]].get())();
  }

  /** An execution that another page began, as what an output area listens to. */
  class Followed {
    constructor(kernel, entry) {
      this.msg = { header: entry.header };
      this.onIOPub = this.onReply = this.onStdin = () => undefined;
      this.done = new Promise((resolve, reject) => {
        this._resolve = resolve;
        this._reject = reject;
      });
      this.done.catch(() => undefined);
      this.number = null;
      this.isDisposed = false;
      this._kernel = kernel;
    }

    take(message) {
      if (this.isDisposed) {
        return;
      }
      if (message.channel === 'stdin') {
        this.onStdin(message);
      } else if (message.header.msg_type === 'execute_input') {
        this.number = message.content.execution_count;
      } else if (message.header.msg_type !== 'status') {
        this.onIOPub(message);
      } else if (message.content.execution_state === 'idle') {
        this._resolve();
      }
    }

    sendInputReply(content, parent) {
      this._kernel.sendInputReply(content, parent);
    }

    registerMessageHook() {}

    removeMessageHook() {}

    dispose() {
      this.isDisposed = true;
      this._reject(new Error('another execution took its place'));
    }
  }

  /** Follows what one kernel runs in one notebook. */
  class Follower {
    constructor(panel, kernel, services) {
      this._panel = panel;
      this._kernel = kernel;
      this._services = services;
      this._followed = new Map();
      this._waiting = null;
      this._heard = false;
      this._receive = this._receive.bind(this);
      kernel.anyMessage.connect(this._receive);
      panel.disposed.connect(() => kernel.anyMessage.disconnect(this._receive));
    }

    async begin() {
      const request = this._services.KernelMessage.createMessage({
        channel: 'shell',
        msgType: 'wardian_follow_request',
        session: this._kernel.clientId,
        username: this._kernel.username,
        content: { since: this._saved() }
      });
      this._request = request.header.msg_id;
      this._waiting = [];
      this._heard = false;
      const future = this._kernel.sendShellMessage(request, true, true);
      // The reply alone is not enough: its "idle" shows that all output from now on is heard here.
      const reply = await future.done;
      for (const entry of reply.content.cells ?? []) {
        this._show(entry);
      }
      const waiting = this._waiting;
      this._waiting = null;
      waiting.forEach(message => this._take(message));
    }

    _receive(_, { msg, direction }) {
      if (direction !== 'recv' || (msg.channel !== 'iopub' && msg.channel !== 'stdin')) {
        return;
      }
      const parent = msg.parent_header.msg_id;
      if (parent === this._request) {
        if (this._waiting && !this._heard) {
          // Output from before is in the reply.
          this._heard = true;
          this._waiting = this._waiting.filter(message => message.channel === 'stdin');
        }
      } else if (this._waiting) {
        this._waiting.push(msg);
      } else {
        this._take(msg);
      }
    }

    _take(message) {
      const own = this._followed.get(message.parent_header.msg_id);
      if (own) {
        own.take(message);
      } else if (message.header.msg_type === 'update_display_data') {
        this._followed.forEach(followed => followed.take(message));
      }
    }

    _show(entry) {
      const cell = this._panel.content.widgets.find(cell => cell.model.id === entry.cell);
      if (!cell || cell.model.type !== 'code' || cell.outputArea.future || !this._wanted(cell, entry)) {
        return;
      }
      const model = cell.model;
      const followed = new Followed(this._kernel, entry);
      this._followed.set(entry.header.msg_id, followed);
      model.trusted = true;
      cell.outputHidden = false;
      cell.outputArea.future = followed;
      model.executionState = 'running';
      followed.done.then(
        () => {
          model.executionCount = followed.number;
          model.executionState = 'idle';
        },
        () => undefined
      );
      entry.messages.forEach(message => followed.take(message));
    }

    /** What has ended is shown only in a cell that is still what it was. */
    _wanted(cell, entry) {
      return entry.ended === null || cell.model.sharedModel.getSource() === entry.code;
    }

    /** When the notebook was saved last, seconds since the epoch. */
    _saved() {
      return Date.parse(this._panel.context.contentsModel?.last_modified ?? 0) / 1000 || 0;
    }
  }

  async function activate(tracker, services) {
    const follow = async (panel, kernel) => {
      await panel.context.ready;
      if (kernel && (await kernel.info).implementation === 'wardian' && !panel.isDisposed) {
        await new Follower(panel, kernel, services).begin();
      }
    };
    tracker.widgetAdded.connect((_, panel) => {
      const context = panel.sessionContext;
      context.kernelChanged.connect((_, change) => void follow(panel, change.newValue));
      void follow(panel, context.session?.kernel);
    });
  }

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB.wardian = {
    init(given) {
      scope = given;
    },
    async get() {
      const [{ INotebookTracker }, services] = await Promise.all([shared('@jupyterlab/notebook'), shared('@jupyterlab/services')]);
      const plugin = {
        id: 'wardian:follow',
        description: 'Shows all output of cells that ran while their page was closed or reloaded.',
        autoStart: true,
        requires: [INotebookTracker],
        activate: (_, tracker) => activate(tracker, services)
      };
      return () => ({ __esModule: true, default: plugin });
    }
  };
})();
