import type { ICellModel } from '@jupyterlab/cells';
import type { JSONObject, JSONValue } from '@lumino/coreutils';

import { isHomeMagic, onLine, withOnLine, withoutOnLine } from './line';

/** What a cell's metadata, and the sticky binding, say: `here` is home. */
export interface IBound {
  on: string;
  lang?: string;
}

/** Where a cell runs. */
export interface IBinding {
  /** A selector, or null for home. */
  selector: string | null;
  language: string;
  source: 'line' | 'metadata' | 'sticky' | 'home';
}

export const HERE = 'here';
const HOME: IBinding = { selector: null, language: 'python', source: 'home' };

/** The binding of a cell: its line's, else its metadata's, else what is sticky, else home. */
export function bindingOf(model: ICellModel, sticky: IBound | null): IBinding {
  const source = model.sharedModel.getSource();
  const line = onLine(source);
  if (line) {
    return made(line.selector, line.language, 'line');
  }
  if (isHomeMagic(source)) {
    return HOME;
  }
  const told = inMetadata(model);
  if (told) {
    return made(told.on, told.lang, 'metadata');
  }
  return sticky ? made(sticky.on, sticky.lang, 'sticky') : HOME;
}

/** Bind a cell in the form that its binding has now: in its line, if it has one, else in its metadata. */
export function bind(model: ICellModel, to: IBound): void {
  const source = model.sharedModel.getSource();
  if (onLine(source)) {
    setSource(model, withOnLine(source, to.on, to.lang ?? 'python'));
  } else {
    setMetadata(model, to);
  }
}

/** Put a cell back home. Where something is sticky, the cell has to say so. */
export function unbind(model: ICellModel, sticky: IBound | null): void {
  const hadLine = onLine(model.sharedModel.getSource());
  if (sticky && hadLine) {
    bind(model, { on: HERE });
    return;
  }
  setSource(model, withoutOnLine(model.sharedModel.getSource()));
  setMetadata(model, sticky ? { on: HERE } : null);
}

/** Write a cell's binding into its source, as an `%%on` line. What is sticky stays so. */
export function toLine(model: ICellModel): void {
  const told = inMetadata(model);
  const source = model.sharedModel.getSource();
  if (told && !onLine(source)) {
    setSource(model, withOnLine(source, told.on, told.lang ?? 'python'));
    setMetadata(model, null);
  }
}

/** Move a cell's binding from its `%%on` line into its metadata. */
export function toMetadata(model: ICellModel): void {
  const source = model.sharedModel.getSource();
  const line = onLine(source);
  if (line?.selector) {
    setMetadata(model, { on: line.selector, lang: line.language });
    setSource(model, withoutOnLine(source));
  }
}

function made(on: string, language: string | undefined, source: IBinding['source']): IBinding {
  return on === HERE ? { ...HOME, source } : { selector: on, language: language ?? 'python', source };
}

function inMetadata(model: ICellModel): IBound | null {
  const entry = model.getMetadata('wardian') as JSONValue | undefined;
  if (!isObject(entry) || typeof entry['on'] !== 'string' || !entry['on'].trim()) {
    return null;
  }
  return { on: entry['on'].trim(), ...(typeof entry['lang'] === 'string' ? { lang: entry['lang'] } : {}) };
}

function setMetadata(model: ICellModel, to: IBound | null): void {
  const known = model.getMetadata('wardian') as JSONValue | undefined;
  const others = isObject(known) ? { ...known } : {};
  delete others['on'];
  delete others['lang'];
  if (to?.on === HERE || !to) {
    // What is left would be an error for a cell at home.
    ['each', 'first', 'serial', 'bg', 'as'].forEach(option => delete others[option]);
  }
  const lang = to?.lang && to.lang !== 'python' && to.on !== HERE ? { lang: to.lang } : {};
  const entry: JSONObject = to ? { ...others, on: to.on, ...lang } : others;
  if (Object.keys(entry).length) {
    model.setMetadata('wardian', entry);
  } else if (known !== undefined) {
    model.deleteMetadata('wardian');
  }
}

function setSource(model: ICellModel, source: string): void {
  const known = model.sharedModel.getSource();
  if (known === source) {
    return;
  }
  // Only what differs, so that a cursor in the rest stays where it is.
  let same = 0;
  while (same < known.length && same < source.length && known[known.length - 1 - same] === source[source.length - 1 - same]) {
    same += 1;
  }
  model.sharedModel.updateSource(0, known.length - same, source.slice(0, source.length - same));
}

function isObject(value: JSONValue | undefined): value is JSONObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
