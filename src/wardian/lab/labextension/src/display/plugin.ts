import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Server } from '../environment/server';
import { EnvironmentOutput, MIME_TYPE } from './output';

/** Before HTML, which is for pages without this. */
const RANK = 0;

export const display: JupyterFrontEndPlugin<void> = {
  id: 'wardian:display',
  description: 'Keeps environments that cells show true.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  optional: [ITranslator],
  activate: (app: JupyterFrontEnd, registry: IRenderMimeRegistry, translator: ITranslator | null) => {
    const shared = {
      server: new Server(app.serviceManager.serverSettings),
      files: null,
      commands: app.commands,
      trans: (translator ?? nullTranslator).load('wardian')
    };
    const place = (path: string): string => app.serviceManager.contents.localPath(path);
    registry.addFactory(
      { safe: true, mimeTypes: [MIME_TYPE], createRenderer: options => new EnvironmentOutput(options, registry, shared, place) },
      RANK
    );
  }
};
