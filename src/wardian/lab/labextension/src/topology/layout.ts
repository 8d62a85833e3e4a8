import type { IBlock, IStructure } from './symbols';

export interface IPoint {
  x: number;
  y: number;
}

/** A rectangle by its middle. */
export interface IBox extends IPoint {
  width: number;
  height: number;
}

/** Where everything is drawn, in pixels at scale one. */
export interface ILayout {
  networks: Record<string, IBox>;
  /** A network with all that is in it alone. */
  clusters: Record<string, IBox>;
  /** A folded group, or the frame around an unfolded one. */
  blocks: Record<string, IBox>;
  nodes: Record<string, IBox>;
  bounds: { left: number; top: number; width: number; height: number };
}

export const NODE = { width: 104, height: 58 };
export const FOLDED = { width: 118, height: 62 };
export const NETWORK = { width: 118, height: 30 };
/** The frame of an unfolded group: its edge, and its title. */
const EDGE = 8;
const TITLE = 20;
/** Between neighbours, and between the layers of the drawing, where links have their words. */
const GAP = 22;
const LAYER = 110;

interface ISized {
  width: number;
  height: number;
}

/** A network with the blocks that are in it alone, or a block that is in several networks or in none; drawn as one. */
interface ICluster extends ISized {
  network?: string;
  rows: IBlock[][];
}

/**
 * Lay a topology out in layers, left to right, or from the top down where `vertical`.
 *
 * Networks have their nodes below them, or beside them where `vertical`, so that links between networks cross no nodes. They and the nodes that join several of them are the vertices of a graph; each connected part
 * of it begins with a vertex at its edge, and distance from there is the layer. Within a layer, vertices are near their neighbours in the
 * layer before. The same structure always gives the same layout.
 */
export function layout(structure: IStructure, vertical: boolean): ILayout {
  const { clusters, neighbours } = clustered(structure, vertical);
  const result: ILayout = { networks: {}, clusters: {}, blocks: {}, nodes: {}, bounds: { left: 0, top: 0, width: 0, height: 0 } };
  let across = 0;
  for (const layers of components(clusters.length, neighbours)) {
    const sizes = layers.map(layer =>
      stacked(
        layer.map(index => clusters[index]!),
        vertical
      )
    );
    const breadth = Math.max(...sizes.map(size => size.across));
    let along = 0;
    layers.forEach((layer, number) => {
      let offset = across;
      for (const index of layer) {
        const cluster = clusters[index]!;
        const [thick, long] = vertical ? [cluster.width, cluster.height] : [cluster.height, cluster.width];
        const middle = along + (vertical ? long : sizes[number]!.along) / 2;
        place(cluster, vertical ? { x: offset + thick / 2, y: middle } : { x: middle, y: offset + thick / 2 }, vertical, result);
        offset += thick + 2 * GAP;
      }
      along += sizes[number]!.along + LAYER;
    });
    across += breadth + 3 * GAP;
  }
  result.bounds = boundsOf([...Object.values(result.networks), ...Object.values(result.blocks), ...Object.values(result.nodes)]);
  return result;
}

function clustered(structure: IStructure, vertical: boolean): { clusters: ICluster[]; neighbours: Set<number>[] } {
  const inside = new Map<string, IBlock[]>(structure.networks.map(network => [network, []]));
  const between: IBlock[] = [];
  const alone: IBlock[] = [];
  for (const block of structure.blocks) {
    if (block.networks.length === 1) {
      inside.get(block.networks[0]!)!.push(block);
    } else {
      (block.networks.length ? between : alone).push(block);
    }
  }
  const clusters = [...inside].map(([network, blocks]) => cluster(blocks, vertical, network));
  clusters.push(...between.map(block => cluster([block], vertical)));
  if (alone.length) {
    clusters.push(cluster(alone, vertical));
  }
  const neighbours = clusters.map(() => new Set<number>());
  const join = (one: number, other: number): void => {
    neighbours[one]!.add(other);
    neighbours[other]!.add(one);
  };
  const number = new Map(structure.networks.map((network, index) => [network, index]));
  structure.links.forEach(({ ends }) => join(number.get(ends[0])!, number.get(ends[1])!));
  between.forEach((block, index) => block.networks.forEach(network => join(structure.networks.length + index, number.get(network)!)));
  return { clusters, neighbours };
}

function cluster(blocks: IBlock[], vertical: boolean, network?: string): ICluster {
  const sizes = blocks.map(sizeOf);
  const area = sizes.reduce((sum, size) => sum + (size.width + GAP) * (size.height + GAP), 0);
  const limit = Math.max(NETWORK.width, 1.5 * Math.sqrt(area), ...sizes.map(size => size.width));
  const rows: IBlock[][] = [];
  let width = 0;
  blocks.forEach((block, index) => {
    const more = sizes[index]!.width + GAP;
    if (!rows.length || width + more - GAP > limit) {
      rows.push([]);
      width = 0;
    }
    rows.at(-1)!.push(block);
    width += more;
  });
  const inner = blockSize(rows);
  if (network === undefined) {
    return { rows, ...inner };
  }
  const beside = vertical && rows.length;
  const gap = rows.length ? GAP : 0;
  return {
    network,
    rows,
    width: beside ? NETWORK.width + gap + inner.width : Math.max(NETWORK.width, inner.width),
    height: beside ? Math.max(NETWORK.height, inner.height) : NETWORK.height + gap + inner.height
  };
}

function place(cluster: ICluster, middle: IPoint, vertical: boolean, result: ILayout): void {
  const { network, rows, width, height } = cluster;
  let top = middle.y - height / 2;
  let left = middle.x - width / 2;
  let inside = width;
  if (network !== undefined) {
    result.clusters[network] = { ...middle, width, height };
    if (vertical) {
      result.networks[network] = { x: left + NETWORK.width / 2, y: middle.y, ...NETWORK };
      left += NETWORK.width + GAP;
      inside -= NETWORK.width + GAP;
      top = middle.y - blockSize(rows).height / 2;
    } else {
      result.networks[network] = { x: middle.x, y: top + NETWORK.height / 2, ...NETWORK };
      top += NETWORK.height + GAP;
    }
  }
  for (const row of rows) {
    const size = rowSize(row);
    let start = left + (inside - size.width) / 2;
    for (const block of row) {
      const box = sizeOf(block);
      placeBlock(block, { x: start + box.width / 2, y: top + box.height / 2, ...box }, result);
      start += box.width + GAP;
    }
    top += size.height + GAP;
  }
}

function placeBlock(block: IBlock, box: IBox, result: ILayout): void {
  if (block.nodes.length === 1) {
    result.nodes[block.nodes[0]!] = box;
    return;
  }
  result.blocks[block.id] = box;
  if (!block.folded) {
    const columns = columnsOf(block);
    block.nodes.forEach((node, index) => {
      result.nodes[node] = {
        x: box.x - box.width / 2 + EDGE + NODE.width * ((index % columns) + 0.5),
        y: box.y - box.height / 2 + EDGE + TITLE + NODE.height * (Math.floor(index / columns) + 0.5),
        ...NODE
      };
    });
  }
}

function sizeOf(block: IBlock): ISized {
  if (block.nodes.length === 1) {
    return NODE;
  }
  if (block.folded) {
    return FOLDED;
  }
  const columns = columnsOf(block);
  return {
    width: columns * NODE.width + 2 * EDGE,
    height: Math.ceil(block.nodes.length / columns) * NODE.height + TITLE + 2 * EDGE
  };
}

function columnsOf(block: IBlock): number {
  return Math.ceil(Math.sqrt(block.nodes.length / 1.3));
}

function blockSize(rows: IBlock[][]): ISized {
  const sizes = rows.map(rowSize);
  return {
    width: Math.max(0, ...sizes.map(size => size.width)),
    height: sizes.reduce((sum, size) => sum + size.height + GAP, rows.length ? -GAP : 0)
  };
}

function rowSize(row: IBlock[]): ISized {
  const sizes = row.map(sizeOf);
  return {
    width: sizes.reduce((sum, size) => sum + size.width + GAP, -GAP),
    height: Math.max(...sizes.map(size => size.height))
  };
}

function stacked(clusters: ICluster[], vertical: boolean): { across: number; along: number } {
  const across = clusters.map(item => (vertical ? item.width : item.height));
  const along = clusters.map(item => (vertical ? item.height : item.width));
  return { across: across.reduce((sum, size) => sum + size + 2 * GAP, -2 * GAP), along: Math.max(...along) };
}

/** The vertices of each connected part, layer by layer. */
function components(count: number, neighbours: Set<number>[]): number[][][] {
  const seen = new Set<number>();
  const found: number[][][] = [];
  for (let start = 0; start < count; start++) {
    if (!seen.has(start)) {
      // the last of the farthest is at the edge
      const edge = layersFrom(start, neighbours).at(-1)![0]!;
      const layers = layersFrom(edge, neighbours);
      layers.flat().forEach(vertex => seen.add(vertex));
      found.push(ordered(layers, neighbours));
    }
  }
  return found;
}

function layersFrom(start: number, neighbours: Set<number>[]): number[][] {
  const seen = new Set([start]);
  const layers = [[start]];
  for (;;) {
    const next: number[] = [];
    for (const vertex of layers.at(-1)!) {
      for (const neighbour of neighbours[vertex]!) {
        if (!seen.has(neighbour)) {
          seen.add(neighbour);
          next.push(neighbour);
        }
      }
    }
    if (!next.length) {
      return layers;
    }
    layers.push(next);
  }
}

/** Sort each layer by where the neighbours of a vertex are: in the layer before, then in the one after, then before again. */
function ordered(layers: number[][], neighbours: Set<number>[]): number[][] {
  const sorted = layers.map(layer => [...layer]);
  const sort = (number: number, beside: number): void => {
    const spot = new Map(sorted[beside]!.map((vertex, index) => [vertex, index / Math.max(1, sorted[beside]!.length - 1)]));
    const wish = new Map(
      sorted[number]!.map((vertex, index) => {
        const spots = [...neighbours[vertex]!].flatMap(other => spot.get(other) ?? []);
        const own = index / Math.max(1, sorted[number]!.length - 1);
        return [vertex, spots.length ? spots.reduce((sum, value) => sum + value, 0) / spots.length : own];
      })
    );
    sorted[number]!.sort((one, other) => wish.get(one)! - wish.get(other)!);
  };
  for (let number = 1; number < sorted.length; number++) {
    sort(number, number - 1);
  }
  for (let number = sorted.length - 2; number >= 0; number--) {
    sort(number, number + 1);
  }
  for (let number = 1; number < sorted.length; number++) {
    sort(number, number - 1);
  }
  return sorted;
}

function boundsOf(boxes: IBox[]): ILayout['bounds'] {
  if (!boxes.length) {
    return { left: 0, top: 0, width: 1, height: 1 };
  }
  const left = Math.min(...boxes.map(box => box.x - box.width / 2));
  const top = Math.min(...boxes.map(box => box.y - box.height / 2));
  const right = Math.max(...boxes.map(box => box.x + box.width / 2));
  const bottom = Math.max(...boxes.map(box => box.y + box.height / 2));
  return { left, top, width: right - left, height: bottom - top };
}
