import type { CodeCell, ICellModel } from '@jupyterlab/cells';
import type { CellList, Notebook } from '@jupyterlab/notebook';
import type { IObservableList } from '@jupyterlab/observables';

import { type IBinding, HERE } from '../binding/binding';
import { withOnLine } from '../binding/line';

/** Give a new, empty code cell the binding of the cell that it was made beside, in the same form. */
export function inherit(
  notebook: Notebook,
  change: IObservableList.IChangedArgs<ICellModel>,
  active: ICellModel | null,
  bindingOf: (model: ICellModel) => IBinding | undefined
): void {
  const [made] = change.newValues;
  if (change.type !== 'add' || change.newValues.length !== 1 || made?.type !== 'code' || !isNew(made)) {
    return;
  }
  const neighbour = neighbourOf(notebook, change.newIndex, active);
  const binding = neighbour && bindingOf(neighbour);
  if (!binding || (binding.source !== 'line' && binding.source !== 'metadata')) {
    return;
  }
  const on = binding.selector ?? HERE;
  if (binding.source === 'line') {
    made.sharedModel.setSource(withOnLine('', on, binding.language));
    void placeCursor(notebook, made, made.sharedModel.getSource().length);
  } else {
    made.setMetadata('wardian', { on, ...(binding.language === 'python' ? {} : { lang: binding.language }) });
  }
}

function isNew(model: ICellModel): boolean {
  return model.sharedModel.getSource() === '' && model.getMetadata('wardian') === undefined;
}

/** The cell that was active, where the new one is next to it; else the one above. */
function neighbourOf(notebook: Notebook, index: number, active: ICellModel | null): ICellModel | undefined {
  const cells: CellList | undefined = notebook.model?.cells;
  const below = cells && index + 1 < cells.length ? cells.get(index + 1) : undefined;
  return active && active === below ? below : cells && index > 0 ? cells.get(index - 1) : undefined;
}

/** Below the line is where one goes on to write. offset: of that place in the source. */
export async function placeCursor(notebook: Notebook, model: ICellModel, offset: number): Promise<void> {
  const cell = notebook.widgets.find(widget => widget.model === model) as CodeCell | undefined;
  await cell?.ready;
  const editor = cell?.editor;
  if (editor) {
    editor.setCursorPosition(editor.getPositionAt(offset) ?? { line: 0, column: 0 });
  }
}
