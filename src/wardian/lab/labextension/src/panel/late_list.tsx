import { PathExt } from '@jupyterlab/coreutils';
import * as React from 'react';

import { type ILate, usePanel, useSignal } from './context';
import { Section } from './section';

/** The cells of open notebooks that would not end before the lease does; a click leads to the cell. */
export function LateList({ late }: { late: ILate }): React.ReactElement | null {
  const { live, commands, trans } = usePanel();
  useSignal(late.changed);
  const cells = live.instance === 'default' ? late.of(live.path) : [];
  if (!cells.length) {
    return null;
  }
  return (
    <Section title={trans.__('Cells that would not end in time')} count={cells.length}>
      <ul className="wardian-List wardian-mod-long">
        {cells.map(({ notebook, cell, source, why }) => (
          <li key={`${notebook} ${cell}`}>
            <button className="wardian-Row" onClick={() => void commands.execute('wardian:show-cell', { notebook, cell })}>
              <span className="wardian-Row-name wardian-mod-code">{source}</span>
              <span>{PathExt.basename(notebook)}</span>
              <span className="wardian-Row-note">{why}</span>
            </button>
          </li>
        ))}
      </ul>
    </Section>
  );
}
