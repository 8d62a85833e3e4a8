import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

export interface IField {
  name: string;
  label: string;
  value: string;
  kind?: 'text' | 'number';
}

/** Ask for some values in a dialog; null where it is cancelled. */
export async function ask(
  title: string,
  accept: string,
  trans: TranslationBundle,
  fields: IField[]
): Promise<Record<string, string> | null> {
  const body = new Form(fields);
  const buttons = [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.okButton({ label: accept })];
  const answer = await showDialog({ title, body, buttons, focusNodeSelector: fields.length ? 'input' : '.jp-mod-accept' });
  return answer.button.accept ? answer.value : null;
}

class Form extends Widget implements Dialog.IBodyWidget<Record<string, string>> {
  constructor(fields: IField[]) {
    super();
    this.addClass('wardian-Ask');
    for (const { name, label, value, kind = 'text' } of fields) {
      const field = document.createElement('label');
      field.textContent = label;
      const input = document.createElement('input');
      Object.assign(input, { name, value, type: kind, className: 'jp-mod-styled' });
      field.append(input);
      this.node.append(field);
    }
  }

  getValue(): Record<string, string> {
    return Object.fromEntries([...this.node.querySelectorAll('input')].map(input => [input.name, input.value.trim()]));
  }
}
