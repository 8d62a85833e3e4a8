import type { Completion, CompletionContext, CompletionResult, CompletionSource } from '@codemirror/autocomplete';

import { type ISchema, at } from './schema';

const LINE = /^(\s*(?:- +)*)(?:([\w.$[\]-]+) *:(?: +(.*))?)?/;

/** Completes keys, and values that are one of a few, where the cursor is in a file of block-style YAML. */
export function completion(load: () => Promise<ISchema>): CompletionSource {
  return async (context: CompletionContext): Promise<CompletionResult | null> => {
    const before = context.state.doc.lineAt(context.pos);
    const typed = before.text.slice(0, context.pos - before.from);
    const value = /^\s*(?:- +)*([\w.$[\]-]+) *: +(\S*)$/.exec(typed);
    const key = /^\s*(?:- +)*([\w-]*)$/.exec(typed);
    if ((!value && !key) || (key && !key[1] && !context.explicit)) {
      return null;
    }
    const earlier = context.state.doc.sliceString(0, before.from).split('\n').slice(0, -1);
    const path = pathAt([...earlier, typed], !!value);
    const schemas = at(await load(), path);
    const word = value ? value[2]! : key![1]!;
    const options = value ? values(schemas) : keys(schemas);
    return options.length ? { from: context.pos - word.length, options, validFor: /^[\w-]*$/ } : null;
  };
}

/** The keys above the last of some lines, its own included where `own`; null is an item of a list. */
export function pathAt(lines: string[], own: boolean): (string | null)[] {
  const path: (string | null)[] = [];
  let [indent, dashes] = depthOf(lines.at(-1)!);
  const key = LINE.exec(lines.at(-1)!)?.[2];
  if (own && key) {
    path.unshift(key);
  }
  if (dashes) {
    path.unshift(...Array<null>(dashes).fill(null));
    indent -= 2 * dashes;
  }
  for (const line of lines.slice(0, -1).reverse()) {
    if (!line.trim() || line.trim().startsWith('#')) {
      continue;
    }
    const [inner, items] = depthOf(line);
    const outer = inner - 2 * items;
    const above = LINE.exec(line)?.[2];
    if (above && inner < indent) {
      path.unshift(above);
      indent = inner;
    }
    if (items && outer < indent && path.length) {
      path.unshift(...Array<null>(items).fill(null));
      indent = outer;
    }
  }
  return path;
}

/** How far a line's key is indented, and how many dashes are before it. */
function depthOf(line: string): [number, number] {
  const [, lead = ''] = LINE.exec(line) ?? [];
  return [lead.length, lead.split('-').length - 1];
}

function keys(schemas: ISchema[]): Completion[] {
  const found = new Map<string, Completion>();
  for (const schema of schemas) {
    for (const [label, property] of Object.entries(schema.properties ?? {})) {
      found.set(label, { label, apply: `${label}: `, type: 'property', ...told(property) });
    }
  }
  return [...found.values()];
}

function values(schemas: ISchema[]): Completion[] {
  const found = new Map<string, Completion>();
  for (const schema of schemas) {
    const booleans = [schema.type].flat().includes('boolean') ? ['true', 'false'] : [];
    for (const label of [...(schema.enum ?? []), ...(schema.examples ?? []), ...booleans].map(String)) {
      found.set(label, { label, type: 'enum' });
    }
  }
  return [...found.values()];
}

function told(schema: ISchema): { info?: string } {
  return schema.description ? { info: schema.description } : {};
}
