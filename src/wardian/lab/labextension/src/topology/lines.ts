import type { ILayout, IPoint } from './layout';

/** The way of a link from one network to another: straight as far as the nodes of a network go, and bent between the layers. */
export function pathOf(places: ILayout, one: string, other: string, vertical: boolean): string {
  const [start, leaving, arriving, end] = pointsOf(places, one, other, vertical);
  const bend = { x: vertical ? 0 : (arriving.x - leaving.x) / 2, y: vertical ? (arriving.y - leaving.y) / 2 : 0 };
  const curve = [{ x: leaving.x + bend.x, y: leaving.y + bend.y }, { x: arriving.x - bend.x, y: arriving.y - bend.y }, arriving];
  return `M${at(start)} L${at(leaving)} C${curve.map(at).join(' ')} L${at(end)}`;
}

/** The middle of a link. */
export function middleOf(places: ILayout, one: string, other: string, vertical: boolean): IPoint {
  const [, leaving, arriving] = pointsOf(places, one, other, vertical);
  return { x: (leaving.x + arriving.x) / 2, y: (leaving.y + arriving.y) / 2 };
}

function pointsOf(places: ILayout, one: string, other: string, vertical: boolean): [IPoint, IPoint, IPoint, IPoint] {
  const [start, end] = [places.networks[one]!, places.networks[other]!];
  const [from, to] = [places.clusters[one]!, places.clusters[other]!];
  if (vertical) {
    const way = to.y - from.y;
    const same = Math.abs(way) < (from.height + to.height) / 2;
    const [leaving, arriving] = same
      ? [start.y, end.y]
      : [from.y + (Math.sign(way) * from.height) / 2, to.y - (Math.sign(way) * to.height) / 2];
    return [start, { x: start.x, y: leaving }, { x: end.x, y: arriving }, end];
  }
  const way = to.x - from.x;
  const same = Math.abs(way) < (from.width + to.width) / 2;
  const [leaving, arriving] = same
    ? [start.x, end.x]
    : [from.x + (Math.sign(way) * from.width) / 2, to.x - (Math.sign(way) * to.width) / 2];
  return [start, { x: leaving, y: start.y }, { x: arriving, y: end.y }, end];
}

function at({ x, y }: IPoint): string {
  return `${x.toFixed(1)},${y.toFixed(1)}`;
}
