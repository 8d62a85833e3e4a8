import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { namedBy } from '../environment/front';
import { IWatches } from '../watch/plugin';
import { addCommands, COMMANDS } from './commands';
import { ILateCells, LateCells } from './late';
import { type IApplication, type ISettings, NotebookSwitch } from './notebookswitch';

const ID = 'wardian:switch';

export const cellSwitch: JupyterFrontEndPlugin<LateCells> = {
  id: ID,
  description: 'Shows and changes where each cell runs.',
  autoStart: true,
  requires: [INotebookTracker, IWatches],
  provides: ILateCells,
  optional: [ICommandPalette, IEditorLanguageRegistry, ISettingRegistry, ITranslator],
  activate: (
    app,
    tracker: INotebookTracker,
    watches: IWatches,
    palette: ICommandPalette | null,
    languages: IEditorLanguageRegistry | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('wardian');
    const settings: ISettings = { inherit: true };
    const late = new LateCells();
    const application: IApplication = {
      renewLate: () => late.renew(),
      trans,
      settings,
      languages,
      canCreate: () => app.commands.hasCommand(COMMANDS.up),
      create: (panel, selector) => void app.commands.execute(COMMANDS.up, { path: panel.context.path, selector, ...experimentOf(panel) }),
      canExtend: () => app.commands.hasCommand(COMMANDS.extend),
      extend: panel => void app.commands.execute(COMMANDS.extend, { path: panel.context.path, ...experimentOf(panel) })
    };
    const switches = new WeakMap<NotebookPanel, NotebookSwitch>();
    const current = (): NotebookSwitch | undefined => {
      const found = tracker.currentWidget ? switches.get(tracker.currentWidget) : undefined;
      return found?.isDisposed ? undefined : found;
    };
    watches.added.connect((_, { panel, watch }) => {
      switches.get(panel)?.dispose();
      const made = new NotebookSwitch(panel, watch, application);
      switches.set(panel, made);
      late.add(panel, () => made.late);
    });
    addCommands(app, tracker, current, palette, trans);
    void registry?.load(ID).then(loaded => {
      const read = (): void => {
        settings.inherit = loaded.get('inherit').composite as boolean;
        document.body.classList.toggle('wardian-mod-hideHome', !(loaded.get('showHome').composite as boolean));
      };
      loaded.changed.connect(read);
      read();
    });
    return late;
  }
};

/** The experiment file that a notebook names, if it names one. */
function experimentOf(panel: NotebookPanel): { experiment?: string } {
  const experiment = namedBy(panel.context.model);
  return experiment ? { experiment } : {};
}
