import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';

/** Call `found` for every notebook that has, or comes to have, a Wardian kernel, and again for each new kernel of it. */
export function onWardianKernel(tracker: INotebookTracker, found: (panel: NotebookPanel, kernel: Kernel.IKernelConnection) => void): void {
  const look = async (panel: NotebookPanel, kernel: Kernel.IKernelConnection | null | undefined): Promise<void> => {
    await panel.context.ready;
    if (kernel && (await kernel.info).implementation === 'wardian' && !panel.isDisposed && !kernel.isDisposed) {
      found(panel, kernel);
    }
  };
  tracker.widgetAdded.connect((_, panel) => {
    const context = panel.sessionContext;
    context.kernelChanged.connect((_, change) => void look(panel, change.newValue));
    void look(panel, context.session?.kernel);
  });
}
