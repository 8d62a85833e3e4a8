/** What of JSON Schema the experiment file's is made of. */
export interface ISchema {
  type?: string | string[];
  description?: string;
  enum?: unknown[];
  examples?: unknown[];
  properties?: Record<string, ISchema>;
  additionalProperties?: ISchema | boolean;
  items?: ISchema;
  anyOf?: ISchema[];
  allOf?: ISchema[];
  $ref?: string;
  $defs?: Record<string, ISchema>;
}

/** The schemas that may hold at a path of keys; null in it is an item of a list. */
export function at(root: ISchema, path: (string | null)[]): ISchema[] {
  let found = alternatives(root, root);
  for (const step of path) {
    found = found.flatMap(schema => inner(schema, step)).flatMap(schema => alternatives(schema, root));
  }
  return found;
}

function inner(schema: ISchema, step: string | null): ISchema[] {
  if (step === null) {
    return schema.items ? [schema.items] : [];
  }
  const property = schema.properties?.[step];
  if (property) {
    return [property];
  }
  return typeof schema.additionalProperties === 'object' ? [schema.additionalProperties] : [];
}

/** A schema, references followed, as the list of what it may be. */
function alternatives(schema: ISchema, root: ISchema): ISchema[] {
  if (schema.$ref) {
    const target = root.$defs?.[schema.$ref.replace('#/$defs/', '')];
    return target ? alternatives(target, root) : [];
  }
  return [schema, ...[...(schema.anyOf ?? []), ...(schema.allOf ?? [])].flatMap(item => alternatives(item, root))];
}
