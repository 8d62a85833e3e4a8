import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker } from '@jupyterlab/notebook';

import { onWardianKernel } from '../kernel/kernels';
import { Follower } from './follower';
import { Returning } from './returning';

export const follow: JupyterFrontEndPlugin<void> = {
  id: 'wardian:follow',
  description: 'Shows all output of cells that ran while their page was closed or reloaded.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    onWardianKernel(tracker, (panel, kernel) => {
      void new Follower(panel, kernel).begin();
      new Returning(panel, kernel, app.serviceManager.sessions);
    });
  }
};
