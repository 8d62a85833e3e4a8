import * as React from 'react';

import type { State, WholeState } from '../environment/types';
import { stateName } from './names';
import { usePanel } from './context';

const MARKS: Record<State | WholeState, string> = {
  absent: '○',
  ready: '●',
  partial: '◐',
  incomplete: '◐',
  stopped: '✕',
  unreachable: '?'
};

/** A state as a coloured mark of a shape of its own, and in words. */
export function StateMark(props: { state: State | WholeState; detail?: string | undefined; short?: boolean }): React.ReactElement {
  const { trans } = usePanel();
  const name = props.detail === 'paused' ? trans.__('paused') : stateName(props.state, trans);
  return (
    <span className="wardian-State" title={props.detail || name}>
      <span className={`wardian-State-mark wardian-state-${props.state}`} aria-hidden="true">
        {props.detail === 'paused' ? '‖' : MARKS[props.state]}
      </span>
      <span className={props.short ? 'wardian-mod-hidden' : ''}>{name}</span>
    </span>
  );
}
