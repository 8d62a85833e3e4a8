import type { IEnvironment } from '../environment/types';

/** What matches a text, by kind and name; null where nothing is searched for. Nodes match by name, group, role, state and address. */
export function found(state: IEnvironment, text: string): Set<string> | null {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) {
    return null;
  }
  const result = new Set<string>();
  const look = (id: string, ...values: (string | undefined)[]): void => {
    const all = values.join('\n').toLowerCase();
    if (words.every(word => all.includes(word))) {
      result.add(id);
    }
  };
  for (const [name, node] of Object.entries(state.nodes)) {
    look(`node:${name}`, name, node.state, node.detail, ...node.roles, ...Object.values(node.addresses));
    if (result.has(`node:${name}`) && node.group) {
      result.add(`group:${node.group}`);
    }
  }
  Object.entries(state.networks).forEach(([name, network]) => look(`network:${name}`, name, network.state, network.subnet));
  Object.entries(state.links).forEach(([name, link]) => look(`link:${name}`, name, link.state, ...Object.values(link.text)));
  return result;
}
