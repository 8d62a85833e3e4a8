import { CodeCell } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';

import type { IBound } from '../binding/binding';

/** Run a cell somewhere else than it says, this time. */
export async function runOnce(panel: NotebookPanel, cell: CodeCell, once: IBound): Promise<void> {
  const known = cell.model.getMetadata('wardian') as Record<string, string> | undefined;
  const lang = once.lang && once.lang !== 'python' ? { lang: once.lang } : {};
  await CodeCell.execute(cell, panel.sessionContext, { wardian: { ...known, once: { on: once.on, ...lang } } });
}
