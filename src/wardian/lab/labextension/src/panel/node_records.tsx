import * as React from 'react';

import type { IEntry } from '../environment/types';
import { useAnswer, usePanel } from './context';
import { moment, span, statusName } from './names';

const LINES = 200;
const CELLS = 20;

/** The cells that ran on a node, the last first. version: changes when there may be others. */
export function CellsRun({ node, version }: { node: string; version: number }): React.ReactElement {
  const { live, server, trans, commands } = usePanel();
  const query = { path: live.path, node, kind: 'cell', limit: CELLS };
  const { answer, trouble } = useAnswer(() => server.get<{ entries: IEntry[] }>('journal', query), JSON.stringify([query, version]));
  const entries = [...(answer?.entries ?? [])].reverse();
  return (
    <>
      <h4>{trans.__('Cells run there')}</h4>
      {entries.length ? (
        <ul className="wardian-List wardian-mod-long">
          {entries.map(entry => {
            const { notebook, cell, source } = entry.detail as { notebook?: string; cell?: string; source?: string };
            return (
              <li key={entry.id}>
                <button
                  className="wardian-Row"
                  title={source ?? ''}
                  disabled={!notebook || !cell}
                  onClick={() => void commands.execute('wardian:show-cell', { notebook: notebook!, cell: cell! })}
                >
                  <span className="wardian-Row-name wardian-mod-code">{firstLine(source ?? entry.summary)}</span>
                  <span>{statusName(entry.status, trans)}</span>
                  <span className="wardian-Row-note">
                    {moment(entry.started)}
                    {entry.ended ? ` · ${span(entry.ended - entry.started)}` : ''}
                    {entry.error ? ` · ${entry.error}` : ''}
                  </span>
                </button>
              </li>
            );
          })}
        </ul>
      ) : (
        <p className="wardian-Note">{trouble || trans.__('None yet.')}</p>
      )}
    </>
  );
}

/** The last lines of what a service, or the agent, printed. Read when it is asked for. */
export function ServiceLog({ node, services }: { node: string; services: string[] }): React.ReactElement {
  const { live, server, trans } = usePanel();
  const [service, setService] = React.useState(services[0] ?? '');
  const [times, setTimes] = React.useState(0);
  const asked = { path: live.path, instance: live.instance, node, lines: LINES, ...(service ? { service } : {}) };
  const { answer, trouble } = useAnswer(() => server.get<{ text: string }>('environment/log', asked), JSON.stringify([asked, times]));
  const box = React.useRef<HTMLPreElement>(null);
  React.useEffect(() => {
    box.current?.scrollTo({ top: box.current.scrollHeight });
  }, [answer]);
  return (
    <>
      <h4>{trans.__('Log')}</h4>
      <p className="wardian-Bar">
        <select aria-label={trans.__('Whose log')} value={service} onChange={event => setService(event.target.value)}>
          {services.map(name => (
            <option key={name}>{name}</option>
          ))}
          <option value="">{trans.__('the agent')}</option>
        </select>
        <button className="wardian-Button" onClick={() => setTimes(times + 1)}>
          {trans.__('Read again')}
        </button>
      </p>
      <pre className="wardian-Log" ref={box} tabIndex={0} aria-label={trans.__('Log')}>
        {trouble || answer?.text || trans.__('It is empty.')}
      </pre>
    </>
  );
}

function firstLine(text: string): string {
  const lines = text.split('\n').filter(line => line.trim());
  const [first = ''] = lines.filter(line => !line.startsWith('%%on'));
  return lines.length > 1 ? `${first} …` : first;
}
