import type { IEnvironment, ILink, INode, State } from '../environment/types';
import { byName, named } from '../panel/names';

/** A symbol of the drawing for the nodes of one group: one for all of them while it is folded, else one each. */
export interface IBlock {
  id: string;
  nodes: string[];
  folded: boolean;
  /** The networks that any of them is in. */
  networks: string[];
  /** Whether all of them are in the same networks. */
  uniform: boolean;
}

/** What is drawn, without its states: the same for as long as the drawing needs no new places. */
export interface IStructure {
  blocks: IBlock[];
  networks: string[];
  /** Links between networks. */
  links: { name: string; ends: [string, string] }[];
  memberships: Record<string, string[]>;
}

/** Above so many members a group is folded at first. */
const FEW = 6;

/** The groups of an environment, in the order of their names: {group: names of its nodes}. */
export function groupsOf(nodes: Record<string, INode>): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const [name, node] of named(nodes)) {
    const group = node.group ?? name;
    const members = groups.get(group);
    if (members) {
      members.push(name);
    } else {
      groups.set(group, [name]);
    }
  }
  return new Map([...groups].sort(([one], [other]) => byName(one, other)));
}

/** Whether a group of so many is folded: as has been chosen, else if it has many members. */
export function isFolded(chosen: ReadonlyMap<string, boolean>, group: string, size: number): boolean {
  return size > 1 && (chosen.get(group) ?? size > FEW);
}

/** What there is to draw. folds: whether a group is folded, where that has been chosen. */
export function structure(state: Pick<IEnvironment, 'nodes' | 'networks' | 'links'>, folds: ReadonlyMap<string, boolean>): IStructure {
  const memberships: Record<string, string[]> = {};
  for (const [name, node] of Object.entries(state.nodes)) {
    memberships[name] = Object.keys(node.addresses).filter(network => network in state.networks);
  }
  const blocks = [...groupsOf(state.nodes)].map(([id, nodes]) => {
    const sets = new Set(nodes.map(node => memberships[node]!.join('\0')));
    const networks = [...new Set(nodes.flatMap(node => memberships[node]!))];
    return { id, nodes, folded: isFolded(folds, id, nodes.length), networks, uniform: sets.size === 1 };
  });
  const links = named(state.links)
    .filter(([, link]) => link.kind === 'link' && link.ends.length === 2 && link.ends.every(end => end in state.networks))
    .map(([name, link]) => ({ name, ends: link.ends as [string, string] }));
  return { blocks, networks: Object.keys(state.networks).sort(byName), links, memberships };
}

/** What to call several things of which each is in one of these states. */
export function worst(states: Iterable<State>): State {
  const found = new Set(states);
  return (['stopped', 'unreachable', 'incomplete', 'absent'] as const).find(state => found.has(state)) ?? 'ready';
}

/** How wide a line is that carries so much, bits a second. */
export function widthOf(carried: number): number {
  return carried ? 2 + Math.min(6, Math.max(0, Math.log10(carried / 1000))) : 0;
}

/** What a link carries both ways, bits a second. */
export function carriedBy(traffic: IEnvironment['traffic'], link: string): number {
  return Object.values(traffic?.[link] ?? {}).reduce((sum, value) => sum + value, 0);
}

/** With whom those of one symbol talk: {symbol: bits a second, both ways}. symbolOf: that of a node, as it is drawn. */
export function partnersOf(
  talk: IEnvironment['talk'],
  symbol: string,
  symbolOf: (node: string) => string | undefined
): Map<string, number> {
  const found = new Map<string, number>();
  for (const [from, receivers] of Object.entries(talk ?? {})) {
    for (const [to, value] of Object.entries(receivers)) {
      const ends = [symbolOf(from), symbolOf(to)];
      const other = ends[ends[0] === symbol ? 1 : 0];
      if (other && other !== symbol && ends.includes(symbol)) {
        found.set(other, (found.get(other) ?? 0) + value);
      }
    }
  }
  return found;
}

/** What a link does, in one line; both directions where they differ. */
export function wordsOf(link: ILink): string {
  const words = Object.entries(link.text);
  const [first] = words;
  if (!first) {
    return '';
  }
  return words.every(([, text]) => text === first[1]) ? first[1] : words.map(([way, text]) => `${way}: ${text}`).join('; ');
}
