import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, ICommandPalette, Notification, showDialog } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Server } from '../environment/server';
import { messageOf } from '../panel/context';
import { environmentIcon } from '../panel/icons';
import { type ITemplate, NewExperiment } from './new_experiment';

/** A card and a command that begin a new experiment. */
export const launcher: JupyterFrontEndPlugin<void> = {
  id: 'wardian:launcher',
  description: 'Begins a new experiment from a template or from the topology of another tool.',
  autoStart: true,
  optional: [ILauncher, ICommandPalette, IDefaultFileBrowser, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    cards: ILauncher | null,
    palette: ICommandPalette | null,
    browser: IDefaultFileBrowser | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('wardian');
    const server = new Server(app.serviceManager.serverSettings);
    const { contents } = app.serviceManager;
    const command = 'wardian:new-experiment';
    const begin = async (folder: string): Promise<void> => {
      const body = new NewExperiment(await server.get<ITemplate[]>('experiments/templates'), folder, trans);
      const buttons = [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.okButton({ label: trans.__('Create') })];
      const answer = await showDialog({ title: trans.__('New Experiment'), body, buttons, focusNodeSelector: 'select' });
      if (answer.button.accept && answer.value) {
        const { path } = await server.post<{ path: string }>('experiments', answer.value);
        await browser?.model.cd(`/${PathExt.dirname(path)}`);
        await app.commands.execute('docmanager:open', { path });
      }
    };
    app.commands.addCommand(command, {
      label: trans.__('New Experiment…'),
      caption: trans.__('An experiment.yaml from a template, or from a topology of another tool'),
      icon: environmentIcon,
      execute: async args => {
        try {
          await begin(contents.localPath((args['cwd'] as string | undefined) ?? browser?.model.path ?? ''));
        } catch (error) {
          Notification.error(messageOf(error), { autoClose: 10_000 });
        }
      }
    });
    cards?.add({ command, category: trans.__('Other'), rank: 20 });
    palette?.addItem({ command, category: trans.__('Wardian') });
  }
};
