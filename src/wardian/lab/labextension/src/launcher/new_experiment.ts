import type { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

export interface ITemplate {
  name: string;
  summary: string;
  text: string;
}

/** What the server is asked to write. */
export interface INewExperiment {
  folder: string;
  template?: string;
  source?: string;
}

/** Asks for the folder of a new experiment, and for what it begins with. */
export class NewExperiment extends Widget implements Dialog.IBodyWidget<INewExperiment> {
  private _begin: HTMLSelectElement;
  private _folder: HTMLInputElement;
  private _source: HTMLInputElement;

  constructor(templates: ITemplate[], folder: string, trans: TranslationBundle) {
    super();
    this.addClass('wardian-Ask');
    this._begin = document.createElement('select');
    this._begin.append(...templates.map(({ name, summary }) => new Option(`${name} – ${summary}`, name)));
    this._begin.append(new Option(trans.__('a topology of containerlab, Kathará, Compose or Mininet'), ''));
    this._folder = field('folder', folder);
    this._source = field('source', '');
    const text = document.createElement('pre');
    text.className = 'wardian-Ask-text';
    text.tabIndex = 0;
    text.setAttribute('aria-label', trans.__('What it begins with'));
    const source = labelled(trans.__('Its file, or a folder with it'), this._source);
    const show = (): void => {
      text.textContent = templates.find(({ name }) => name === this._begin.value)?.text ?? '';
      text.hidden = !this._begin.value;
      source.hidden = !!this._begin.value;
    };
    this._begin.addEventListener('change', show);
    show();
    this.node.append(labelled(trans.__('Begin with'), this._begin), source, labelled(trans.__('Folder'), this._folder), text);
  }

  getValue(): INewExperiment {
    const folder = this._folder.value.trim();
    return this._begin.value ? { folder, template: this._begin.value } : { folder, source: this._source.value.trim() };
  }
}

function field(name: string, value: string): HTMLInputElement {
  return Object.assign(document.createElement('input'), { name, value, className: 'jp-mod-styled' });
}

function labelled(words: string, control: HTMLElement): HTMLLabelElement {
  const label = document.createElement('label');
  label.append(words, control);
  return label;
}
