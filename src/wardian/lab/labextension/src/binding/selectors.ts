/** What a selector knows of a node; `index` is null for one that is no member of a group. */
export interface INodeRef {
  name: string;
  group: string;
  index: number | null;
  roles: string[];
}

/** What a selector comes to: the nodes that it picks, and what it names that does not exist. */
export interface IPick {
  nodes: string[];
  unknown: string[];
}

const TERM = /^(!?)\s*([A-Za-z0-9_.-]+)\s*(?:\[\s*([^[\]]*?)\s*\])?$/;
const INDEX = /^-?[0-9]{1,9}$/;
const SLICE = /^(-?[0-9]{1,9})?\s*:\s*(-?[0-9]{1,9})?\s*(?::\s*(-?[0-9]{1,9})?)?$/;

/**
 * The nodes that a selector picks, as the kernel's `experiment/selectors.py` picks them. What is malformed counts as unknown.
 * known: groups and roles that exist, though no node may have them now.
 */
export function pick(selector: string, nodes: readonly INodeRef[], known: readonly string[] = []): IPick {
  const terms = selector.split(',').map(part => part.trim());
  const unknown: string[] = [];
  const excludes = terms.filter(term => term.startsWith('!')).length;
  const picked = new Set(excludes === terms.length ? nodes.map(node => node.name) : []);
  for (const term of terms) {
    const found = matches(term, nodes, known);
    if (found === null) {
      unknown.push(term.replace(/^!\s*/, ''));
    }
    found?.forEach(name => (term.startsWith('!') ? picked.delete(name) : picked.add(name)));
  }
  if (terms[0]?.startsWith('!') && excludes < terms.length) {
    unknown.push(selector);
  }
  return { nodes: unknown.length ? [] : nodes.map(node => node.name).filter(name => picked.has(name)), unknown };
}

/** The names of nodes that one term stands for, or null where it names nothing. */
function matches(term: string, nodes: readonly INodeRef[], known: readonly string[]): string[] | null {
  const match = TERM.exec(term);
  if (!match) {
    return null;
  }
  const [, , name = '', index] = match;
  const found = name === 'all' ? nodes : nodes.filter(node => node.group === name || node.roles.includes(name));
  if (!found.length && name !== 'all') {
    return known.includes(name) ? [] : null;
  }
  return index === undefined ? found.map(node => node.name) : members(name, index, found);
}

function members(group: string, index: string, found: readonly INodeRef[]): string[] | null {
  const names = new Map(found.filter(node => node.group === group && node.index !== null).map(node => [node.index as number, node.name]));
  const size = Math.max(-1, ...names.keys()) + 1;
  if (!size) {
    return null;
  }
  if (INDEX.test(index)) {
    const name = names.get(Number(index) + (Number(index) < 0 ? size : 0));
    return name === undefined ? null : [name];
  }
  const match = SLICE.exec(index);
  const step = Number(match?.[3] ?? 1);
  if (!match || !step) {
    return null;
  }
  return sliced(size, match[1], match[2], step).flatMap(position => names.get(position) ?? []);
}

/** The positions that a Python slice of a list of `size` picks. */
function sliced(size: number, start: string | undefined, stop: string | undefined, step: number): number[] {
  const [least, most] = step > 0 ? [0, size] : [-1, size - 1];
  const bound = (written: string | undefined, without: number): number => {
    const value = written === undefined ? without : Number(written) + (Number(written) < 0 ? size : 0);
    return Math.min(Math.max(value, least), most);
  };
  const [first, last] =
    step > 0 ? [bound(start, 0), bound(stop, size)] : [bound(start, size - 1), stop === undefined ? -1 : bound(stop, -1)];
  const positions = [];
  for (let position = first; step > 0 ? position < last : position > last; position += step) {
    positions.push(position);
  }
  return positions;
}
