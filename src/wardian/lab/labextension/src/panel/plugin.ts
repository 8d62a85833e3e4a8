import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, Notification, WidgetTracker } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { TabPanel } from '@lumino/widgets';

import { BrowserFiles } from '../actions/browser_files';
import { Front, namedBy } from '../environment/front';
import { Live } from '../environment/live';
import { Server } from '../environment/server';
import { COMMANDS } from '../switch/commands';
import { ILateCells, type LateCells } from '../switch/late';
import { IWatches } from '../watch/plugin';
import { environmentIcon } from './icons';
import { messageOf } from './context';
import { EXTENSION, type INoticeSettings, Notices } from './notices';
import { type PageKind, PanelPage, PanelSidebar } from './panel';
import { showCell } from './show_cell';

/** The sidebar with the environment of what is in front, and pages with one environment each. */
export const panel: JupyterFrontEndPlugin<void> = {
  id: 'wardian:panel',
  description: 'Shows the environment of an experiment beside its notebooks.',
  autoStart: true,
  optional: [IDefaultFileBrowser, ICommandPalette, ILayoutRestorer, ISettingRegistry, ITranslator, IWatches, ILabShell, ILateCells],
  activate: (
    app: JupyterFrontEnd,
    browser: IDefaultFileBrowser | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    settings: ISettingRegistry | null,
    translator: ITranslator | null,
    watches: IWatches | null,
    labShell: ILabShell | null,
    lateCells: LateCells | null
  ) => {
    const trans = (translator ?? nullTranslator).load('wardian');
    const server = new Server(app.serviceManager.serverSettings);
    const front = new Front(app, server, browser);
    const tell = (error: unknown): void => void Notification.error(messageOf(error), { autoClose: 8000 });
    const files = browser ? new BrowserFiles(browser, app.serviceManager.serverSettings, trans, tell) : null;
    const late = lateCells
      ? {
          changed: lateCells.changed,
          of: (path: string) =>
            lateCells
              .all()
              .filter(([{ context }]) => front.experimentOf(context.path, namedBy(context.model)) === path)
              .flatMap(([{ context }, cells]) => cells.map(cell => ({ ...cell, notebook: context.path })))
        }
      : undefined;
    const shared = { server, files, commands: app.commands, late, trans };
    const category = trans.__('Wardian');

    const sidebar = new PanelSidebar(front, shared);
    sidebar.id = 'wardian-panel';
    sidebar.title.icon = environmentIcon;
    sidebar.title.caption = trans.__('Environment');
    app.shell.add(sidebar, 'right', { rank: 300, type: 'Wardian' });
    restorer?.add(sidebar, sidebar.id);

    const pages = new WidgetTracker<MainAreaWidget<PanelPage>>({ namespace: 'wardian-page' });
    const open = (kind: PageKind, args: ReadonlyPartialJSONObject): void => {
      const { path, instance = 'default' } = { path: front.live?.path, instance: front.live?.instance, ...args } as Partial<Live>;
      if (!path) {
        return;
      }
      const id = `wardian-${kind}:${path}:${instance}`;
      let page = pages.find(widget => widget.id === id);
      if (!page) {
        page = new MainAreaWidget({ content: new PanelPage(kind, new Live(server, path, instance), shared) });
        const folder = path.split('/').at(-2) ?? path;
        page.id = id;
        page.title.icon = environmentIcon;
        page.title.label = kind === 'journal' ? trans.__('Journal of %1', folder) : trans.__('Environment of %1', folder);
        page.title.closable = true;
        void pages.add(page);
        // a page of Notebook 7 has one document, and room below it
        page.toggleClass('wardian-mod-below', !labShell);
        app.shell.add(page, labShell ? 'main' : 'down');
      }
      app.shell.activateById(id);
      const tabs = page.parent?.parent;
      if (tabs instanceof TabPanel) {
        tabs.currentWidget = page;
      }
    };
    app.commands.addCommand('wardian:open-page', {
      label: trans.__('Open the Environment as a Page'),
      isEnabled: args => !!args['path'] || !!front.live,
      execute: args => open('environment', args)
    });
    app.commands.addCommand('wardian:open-journal', {
      label: trans.__('Open the Journal'),
      isEnabled: args => !!args['path'] || !!front.live,
      execute: args => open('journal', args)
    });
    app.commands.addCommand('wardian:restore-page', {
      label: trans.__('Open a Page Again'),
      isVisible: () => false,
      execute: ({ kind, ...args }) => open(kind as PageKind, args)
    });
    app.commands.addCommand('wardian:show-panel', {
      label: trans.__('Show the Environment'),
      icon: environmentIcon,
      execute: () => app.shell.activateById(sidebar.id)
    });
    // of a notebook where one is given, else what is shown
    const fileOf = ({ path, experiment }: ReadonlyPartialJSONObject): string | null =>
      path ? front.experimentOf(path as string, experiment as string | undefined) : (front.live?.path ?? null);
    app.commands.addCommand(COMMANDS.extend, {
      label: trans.__('Extend the Lease by 1 h'),
      isEnabled: args => !!fileOf(args),
      execute: args => {
        const path = fileOf(args) ?? '';
        const instance = path === front.live?.path ? front.live.instance : 'default';
        return server.post('environment/lease', { path, instance, extend: EXTENSION }).then(() => watches?.refresh(), tell);
      }
    });
    app.commands.addCommand(COMMANDS.up, {
      label: trans.__('Grow the Environment…'),
      isEnabled: args => !!args['path'] || !!front.live,
      execute: args => {
        const { selector } = args;
        const file = fileOf(args);
        if (!file) {
          Notification.error(trans.__('There is no experiment.yaml here, nor in a folder above.'));
          return;
        }
        if (file !== front.live?.path) {
          front.choose(file, 'default');
        }
        front.live?.want((selector as string | null | undefined) ?? null);
        app.shell.activateById(sidebar.id);
      }
    });
    app.commands.addCommand('wardian:show-cell', {
      label: trans.__('Show a Cell'),
      execute: args => showCell(app, args['notebook'] as string, args['cell'] as string)
    });
    ['wardian:show-panel', COMMANDS.up, COMMANDS.extend, 'wardian:open-page', 'wardian:open-journal'].forEach(command =>
      palette?.addItem({ command, category })
    );
    void restorer?.restore(pages, {
      command: 'wardian:restore-page',
      args: ({ content: { kind, live } }) => ({ kind, path: live.path, instance: live.instance }),
      name: widget => widget.id
    });

    // What cells can run on is the kernels' to say, and they look when they are asked.
    let seen = '';
    front.changed.connect(() => front.live?.changed.connect(tellKernels));
    function tellKernels({ state }: Live): void {
      const now = JSON.stringify([state?.record?.id, state?.state, state?.lease, Object.keys(state?.nodes ?? {}).length]);
      if (state && now !== seen) {
        seen = now;
        watches?.refresh();
      }
    }

    const notices = new Notices(
      front,
      server,
      trans,
      () => sidebar.isVisible,
      () => app.shell.activateById(sidebar.id)
    );
    void settings?.load(panel.id).then(loaded => {
      const read = (): void => {
        notices.settings = loaded.composite as unknown as INoticeSettings;
      };
      loaded.changed.connect(read);
      read();
    });
  }
};
