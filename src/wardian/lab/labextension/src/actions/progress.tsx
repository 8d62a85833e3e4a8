import * as React from 'react';

import type { IEntry, IStep, ITask } from '../environment/types';
import { messageOf, usePanel } from '../panel/context';
import { kindName, span } from '../panel/names';

const MARKS: Record<string, string> = { waiting: '○', started: '◐', done: '●', failed: '✕', skipped: '–' };
/** Words about so many resources are shown. */
const FEW = 5;

/** The last task, while it runs and when it went wrong: each operation with the provider's own words. */
export function Progress({ tasks }: { tasks: Record<string, ITask> }): React.ReactElement | null {
  const { server, trans } = usePanel();
  const [seen, setSeen] = React.useState('');
  const [trouble, setTrouble] = React.useState('');
  const task = Object.values(tasks).sort((one, other) => other.started - one.started)[0];
  if (!task || task.state === 'done' || task.id === seen) {
    return null;
  }
  const say = (error: unknown): void => setTrouble(messageOf(error));
  const running = task.state === 'running';
  const names = { up: trans.__('Up'), down: trans.__('Down') };
  const states = { running: trans.__('running'), done: trans.__('done'), failed: trans.__('failed'), cancelled: trans.__('stopped') };
  const words = Object.entries(task.words ?? {});
  return (
    <section className="wardian-Form" aria-label={trans.__('Progress')}>
      <h3 role="status">
        {names[task.kind]}: {states[task.state]}
      </h3>
      <ul className="wardian-List wardian-mod-long">
        {Object.entries(task.operations).map(([id, step]) => (
          <Step key={id} step={step} />
        ))}
        {words.slice(-FEW).map(([name, word]) => (
          <li key={name} className="wardian-Row">
            {name}: {word}
          </li>
        ))}
      </ul>
      {task.error ? (
        <p className="wardian-mod-warning" role="alert">
          {messageOf(task.error)}
        </p>
      ) : null}
      {trouble ? <p className="wardian-mod-warning">{trouble}</p> : null}
      <div className="wardian-Bar">
        {running ? (
          <button className="wardian-Button" onClick={() => server.request('DELETE', `tasks/${task.id}`).catch(say)}>
            {trans.__('Stop')}
          </button>
        ) : (
          <>
            <button
              className="wardian-Button wardian-mod-accept"
              onClick={() => server.post(`tasks/${task.id}/retry`, {}).then(() => setTrouble(''), say)}
            >
              {trans.__('Retry')}
            </button>
            <button className="wardian-Button" onClick={() => setSeen(task.id)}>
              {trans.__('Dismiss')}
            </button>
          </>
        )}
      </div>
    </section>
  );
}

const Step = React.memo(function Step({ step }: { step: IStep }): React.ReactElement {
  const { trans } = usePanel();
  const actions: Record<string, string> = { create: trans.__('create'), update: trans.__('change'), delete: trans.__('remove') };
  const states: Record<string, string> = {
    waiting: trans.__('waiting'),
    started: trans.__('running'),
    done: trans.__('done'),
    failed: trans.__('failed'),
    skipped: trans.__('left out')
  };
  const resources = Object.entries(step.resources);
  return (
    <li className="wardian-Row wardian-Step">
      <span aria-hidden="true">{MARKS[step.state] ?? '·'}</span>
      <span className="wardian-Row-name">
        {actions[step.action] ?? step.action} {kindName(step.kind, trans)} {step.targets}
      </span>
      <span>
        {states[step.state] ?? step.state}
        {step.started && step.ended ? ` · ${span(step.ended - step.started)}` : ''}
      </span>
      {step.error ? <span className="wardian-Row-note">{step.error}</span> : null}
      {resources.slice(0, FEW).map(([name, word]) => (
        <span key={name} className="wardian-Row-note">
          {name}: {word}
        </span>
      ))}
      {resources.length > FEW ? <span className="wardian-Row-note">{trans.__('and %1 more', resources.length - FEW)}</span> : null}
    </li>
  );
});

/** What other commands, and cells, are doing just now. */
export function Running({ entries }: { entries: Record<string, IEntry> }): React.ReactElement {
  return (
    <ul className="wardian-List wardian-mod-long">
      {Object.values(entries).map(entry => (
        <li key={entry.id} className="wardian-Row">
          <span className="wardian-Row-name">{entry.summary}</span>
          <span className="wardian-Row-note">{entry.nodes.slice(0, FEW).join(', ')}</span>
        </li>
      ))}
    </ul>
  );
}
