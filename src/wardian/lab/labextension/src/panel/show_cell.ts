import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { NotebookPanel } from '@jupyterlab/notebook';

/** Open a notebook at one of its cells. */
export async function showCell(app: JupyterFrontEnd, notebook: string, cell: string): Promise<void> {
  const panel = (await app.commands.execute('docmanager:open', { path: notebook })) as NotebookPanel | undefined;
  await panel?.revealed;
  const index = panel?.content.widgets.findIndex(widget => widget.model.id === cell) ?? -1;
  if (panel && index >= 0) {
    panel.content.activeCellIndex = index;
    await panel.content.scrollToItem(index, 'center');
  }
}
