import type { INodeRef } from './selectors';

/** How many colours `style/colors.css` has for nodes. */
export const COLORS = 8;
/** The last two stand out less, and are taken where the others are. */
const VIVID = 6;

/** A colour for each node, by number. A node keeps its own when others of its group come or go; the first eight all differ. */
export function colorsOf(nodes: readonly INodeRef[]): Map<string, number> {
  const order = [...nodes].sort(
    (one, other) => (one.index ?? 0) - (other.index ?? 0) || (one.group < other.group ? -1 : Number(one.group > other.group))
  );
  const used = new Array<number>(COLORS).fill(0);
  const colors = new Map<string, number>();
  for (const node of order) {
    const wished = hash(node.group) + (node.index ?? 0);
    const least = Math.min(...used);
    const candidates = Array.from({ length: COLORS }, (_, step) => (step < VIVID ? (wished + step) % VIVID : step));
    const color = candidates.find(candidate => used[candidate] === least) ?? 0;
    used[color] = least + 1;
    colors.set(node.name, color);
  }
  return colors;
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let position = 0; position < text.length; position += 1) {
    value = Math.imul(value ^ text.charCodeAt(position), 0x01000193) >>> 0;
  }
  return value;
}
