import type { ICellModel } from '@jupyterlab/cells';
import type { Notebook } from '@jupyterlab/notebook';
import type { IObservableList } from '@jupyterlab/observables';

import { HERE, type IBinding } from '../binding/binding';
import { onLine } from '../binding/line';
import { placeCursor } from './inherit';

/** Give all parts of a cell that was split the `%%on` line that is now in the first part alone. */
export function keepLine(
  notebook: Notebook,
  change: IObservableList.IChangedArgs<ICellModel>,
  bindingOf: (model: ICellModel) => IBinding | undefined
): void {
  const [first, ...others] = change.newValues;
  const cells = notebook.model?.cells;
  const end = change.newIndex + change.newValues.length;
  const last = cells && end < cells.length ? cells.get(end) : undefined;
  if (change.type !== 'add' || !first || !last || last.type !== 'code') {
    return;
  }
  // JupyterLab keeps the cell that is split for the last part, and puts new ones with the others above it.
  const source = first.sharedModel.getSource();
  const line = onLine(source);
  const before = bindingOf(last);
  if (line && before?.source === 'line' && (before.selector ?? HERE) === line.selector && !onLine(last.sharedModel.getSource())) {
    const text = `${source.slice(line.start, line.end)}\n`;
    [...others, last].forEach(model => model.sharedModel.updateSource(0, 0, text));
    void placeCursor(notebook, last, text.length);
  }
}
