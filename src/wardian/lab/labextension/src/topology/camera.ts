import * as React from 'react';

import type { IPoint } from './layout';

const SMALLEST = 0.05;
const LARGEST = 3;
/** Of what is shown whole, so that few symbols do not become huge. */
const LARGEST_FIT = 1.2;
const MARGIN = 16;
/** Left and right of it, where names from afar go beyond their symbols. */
const SIDE = 30;

interface ISize {
  width: number;
  height: number;
}

interface IBounds extends ISize {
  left: number;
  top: number;
}

/** Which part of the drawing is seen: the point in the middle, and the scale. */
export interface ICamera extends IPoint {
  scale: number;
}

export interface IView {
  camera: ICamera;
  /** Zoom by a factor; about a point of the element, else about its middle. */
  zoom(factor: number, about?: IPoint): void;
  /** Move by pixels of the element. */
  pan(across: number, down: number): void;
  /** Show all, now and whenever the drawing or the element gets another size, until the user moves something. */
  fit(): void;
  /** Bring a point of the drawing into the middle. */
  center(point: IPoint): void;
}

/** How large an element is; nothing until that is known. */
export function useSize(element: React.RefObject<Element>): ISize {
  const [size, setSize] = React.useState({ width: 0, height: 0 });
  React.useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize({ width, height });
    });
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, [element]);
  return size;
}

/** A view of a drawing in an element of this size. */
export function useView(size: ISize, bounds: IBounds): IView {
  const [moved, setMoved] = React.useState<ICamera | null>(null);
  const camera = moved ?? whole(bounds, size);
  const latest = React.useRef(camera);
  latest.current = camera;
  const move = (change: (camera: ICamera) => ICamera): void => {
    latest.current = change(latest.current);
    setMoved(latest.current);
  };
  return {
    camera,
    zoom: (factor, about) =>
      move(({ x, y, scale }) => {
        const next = Math.min(LARGEST, Math.max(SMALLEST, scale * factor));
        const [across, down] = about ? [about.x - size.width / 2, about.y - size.height / 2] : [0, 0];
        // the point under the pointer stays there
        return { x: x + across / scale - across / next, y: y + down / scale - down / next, scale: next };
      }),
    pan: (across, down) => move(({ x, y, scale }) => ({ x: x - across / scale, y: y - down / scale, scale })),
    fit: () => setMoved(null),
    center: point => move(({ scale }) => ({ ...point, scale: Math.max(scale, 0.8) }))
  };
}

/** The scale at which a drawing is seen whole. */
export function fitting(bounds: ISize, size: ISize): number {
  const scale = Math.min((size.width - 2 * SIDE) / bounds.width, (size.height - 2 * MARGIN) / bounds.height);
  return Math.min(LARGEST_FIT, Math.max(SMALLEST, scale));
}

function whole(bounds: IBounds, size: ISize): ICamera {
  return { x: bounds.left + bounds.width / 2, y: bounds.top + bounds.height / 2, scale: fitting(bounds, size) };
}
