import * as React from 'react';

import type { IUsage } from '../environment/types';
import { usePanel } from './context';
import { bytes } from './names';

const WIDTH = 120;
const HEIGHT = 26;

/** What a node uses, and used since the panel began to look. cpus, memory: what it may use. */
export function UsageLines(props: {
  history: readonly IUsage[];
  cpus?: number | undefined;
  memory?: number | undefined;
}): React.ReactElement | null {
  const { history, cpus, memory } = props;
  const { trans } = usePanel();
  const last = history.at(-1);
  if (!last) {
    return null;
  }
  const shares = history.flatMap(item => item.cpu ?? []);
  return (
    <div className="wardian-Usage">
      <Line
        title={trans.__('Processors')}
        words={last.cpu === undefined ? trans.__('measuring…') : `${Math.round(100 * last.cpu)} %`}
        values={shares}
        top={Math.max(cpus ?? 1, ...shares)}
      />
      <Line
        title={trans.__('Memory')}
        words={memory ? trans.__('%1 of %2', bytes(last.memory), bytes(memory)) : bytes(last.memory)}
        values={history.map(item => item.memory)}
        top={memory ?? Math.max(1, ...history.map(item => item.memory))}
      />
    </div>
  );
}

function Line(props: { title: string; words: string; values: number[]; top: number }): React.ReactElement {
  const { title, words, values, top } = props;
  const step = WIDTH / Math.max(1, values.length - 1);
  const points = values.map((value, index) => `${(index * step).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`);
  return (
    <div className="wardian-Usage-line">
      <span>{title}</span>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <polyline points={points.join(' ')} />
      </svg>
      <span>{words}</span>
    </div>
  );
}
