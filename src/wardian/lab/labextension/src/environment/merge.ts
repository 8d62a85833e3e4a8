type Json = Record<string, unknown>;

/** Apply a JSON Merge Patch (RFC 7396). What it does not touch stays the same object, so that a view can tell what has changed. */
export function merged<T>(target: T, patch: unknown): T {
  if (!isObject(patch)) {
    return patch as T;
  }
  const result: Json = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) {
      delete result[key];
    } else {
      result[key] = merged(result[key], value);
    }
  }
  return result as T;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
