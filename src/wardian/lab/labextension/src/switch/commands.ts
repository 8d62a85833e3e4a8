import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { HERE, toLine, toMetadata } from '../binding/binding';
import type { NotebookSwitch } from './notebookswitch';
import { runOnce } from './running';

/**
 * Ids of commands. `up` and `extend` are those of whoever can grow and hold an environment: they are given {"path", "experiment"}, the
 * notebook's and that of the experiment file which it names, if it does, and `up` a cell's "selector".
 */
export const COMMANDS = {
  choose: 'wardian:choose-binding',
  bind: 'wardian:bind',
  home: 'wardian:bind-home',
  toLine: 'wardian:binding-to-line',
  toMetadata: 'wardian:binding-to-metadata',
  allToLines: 'wardian:all-bindings-to-lines',
  runOnce: 'wardian:run-once-on',
  runNode: 'wardian:run-cells-of-node',
  up: 'wardian:up',
  extend: 'wardian:extend-lease'
};
const NUMBERS = 9;

/** Add the commands for cells, and all of them to the palette. */
export function addCommands(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  switchOf: () => NotebookSwitch | undefined,
  palette: ICommandPalette | null,
  trans: TranslationBundle
): void {
  const category = trans.__('Wardian');
  const add = (
    id: string,
    label: string | ((args: ReadonlyPartialJSONObject) => string),
    execute: (found: NotebookSwitch, args: ReadonlyPartialJSONObject) => unknown,
    inPalette = true
  ): void => {
    app.commands.addCommand(id, {
      label,
      isEnabled: () => tracker.currentWidget !== null && tracker.currentWidget === app.shell.currentWidget && switchOf() !== undefined,
      execute: args => {
        const found = switchOf();
        return found && execute(found, args);
      }
    });
    if (inPalette) {
      palette?.addItem({ command: id, category });
    }
  };
  add(COMMANDS.choose, trans.__('Choose Where the Cell Runs…'), found => {
    const [first] = found.selected;
    if (first) {
      found.choose(
        first.anchor,
        found.selected.map(one => one.cell)
      );
    }
  });
  add(
    COMMANDS.bind,
    args => (args['number'] ? trans.__('Put the Cell on Node %1', args['number']) : trans.__('Put the Cell on %1', args['on'] ?? '…')),
    (found, args) => {
      const on = args['number'] ? found.watch.environment?.nodes[Number(args['number']) - 1]?.name : args['on'];
      if (typeof on === 'string') {
        const lang = typeof args['lang'] === 'string' ? args['lang'] : undefined;
        found.selected.forEach(one => found.bind([one.cell], { on, lang: lang ?? one.binding.language }));
      }
    },
    false
  );
  for (let number = 1; number <= NUMBERS; number += 1) {
    palette?.addItem({ command: COMMANDS.bind, category, args: { number } });
  }
  add(COMMANDS.home, trans.__('Put the Cell Back Home'), found => {
    found.bind(
      found.selected.map(one => one.cell),
      { on: HERE }
    );
  });
  add(COMMANDS.toLine, trans.__('Write the Binding as an %%on Line'), found => {
    found.selected.forEach(one => toLine(one.cell.model));
  });
  add(COMMANDS.toMetadata, trans.__('Keep the Binding in Metadata Instead of an %%on Line'), found => {
    found.selected.forEach(one => toMetadata(one.cell.model));
  });
  add(COMMANDS.allToLines, trans.__('Write All Bindings of the Notebook as %%on Lines'), found => {
    found.switches.forEach(one => toLine(one.cell.model));
  });
  add(COMMANDS.runOnce, trans.__('Run the Cell Once On…'), (found, args) => {
    const [first] = found.selected;
    if (first && typeof args['on'] === 'string') {
      return runOnce(found.panel, first.cell, { on: args['on'] });
    }
    if (first) {
      found.pick(first.anchor, trans.__('Run this cell once on'), bound => void runOnce(found.panel, first.cell, bound), first.cell);
    }
    return undefined;
  });
  add(COMMANDS.runNode, trans.__('Run All Cells of a Node…'), (found, args) => {
    if (typeof args['node'] === 'string') {
      return found.runNode(args['node']);
    }
    const [first] = found.selected;
    found.pick(first?.anchor ?? found.panel.node, trans.__('Run all cells of'), bound => void found.runNode(bound.on));
    return undefined;
  });
}
