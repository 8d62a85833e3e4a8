import * as React from 'react';

import type { IListing } from '../environment/types';
import { messageOf, useAnswer, usePanel } from '../panel/context';
import { bytes } from '../panel/names';

/** The files of a node: folders are entered, files fetched, and files from this computer sent by dropping them here. */
export function Files({ node }: { node: string }): React.ReactElement {
  const { live, server, trans } = usePanel();
  const [folder, setFolder] = React.useState('.');
  const [times, setTimes] = React.useState(0);
  const [said, setSaid] = React.useState('');
  const [over, setOver] = React.useState(false);
  const chooser = React.useRef<HTMLInputElement>(null);
  const which = { path: live.path, instance: live.instance, node };
  const key = JSON.stringify([which, folder, times]);
  const { answer, trouble } = useAnswer(() => server.get<IListing>('environment/files', { ...which, folder }), key);
  const here = answer?.folder ?? '';
  const send = async (files: FileList | null): Promise<void> => {
    try {
      for (const file of files ?? []) {
        setSaid(trans.__('Sending %1…', file.name));
        await server.put('environment/file', { ...which, folder: here, name: file.name }, file);
        setSaid(trans.__('%1 is on %2', file.name, node));
      }
    } catch (error) {
      setSaid(messageOf(error));
    }
    setTimes(before => before + 1);
  };
  return (
    <div
      className={`wardian-Files${over ? ' wardian-mod-over' : ''}`}
      onDragOver={event => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={event => {
        event.preventDefault();
        setOver(false);
        void send(event.dataTransfer.files);
      }}
    >
      <div className="wardian-Bar">
        <code>{here}</code>
        <button className="wardian-Button" disabled={!here} onClick={() => chooser.current!.click()}>
          {trans.__('Upload…')}
        </button>
        <input
          ref={chooser}
          type="file"
          multiple
          hidden
          aria-label={trans.__('Files to upload')}
          onChange={event => {
            void send(event.target.files);
          }}
        />
      </div>
      <p className="wardian-Note" role="status">
        {trouble || said || trans.__('Drop files here to send them.')}
      </p>
      <ul className="wardian-List wardian-mod-long">
        {here && here !== '/' ? (
          <li>
            <button className="wardian-Row" onClick={() => setFolder(here.replace(/\/[^/]*$/, '') || '/')}>
              <span className="wardian-Row-name">..</span>
            </button>
          </li>
        ) : null}
        {answer?.items.map(item => {
          const full = `${here === '/' ? '' : here}/${item.name}`;
          return (
            <li key={item.name}>
              {item.kind === 'file' ? (
                <a className="wardian-Row" href={server.url('environment/file', { ...which, file: full })} download={item.name}>
                  <span className="wardian-Row-name">{item.name}</span>
                  <span>{bytes(item.size)}</span>
                </a>
              ) : (
                <button className="wardian-Row" disabled={item.kind === 'other'} onClick={() => setFolder(full)}>
                  <span className="wardian-Row-name">
                    {item.name}
                    {item.kind === 'folder' ? '/' : ''}
                  </span>
                </button>
              )}
            </li>
          );
        })}
      </ul>
      {answer && !answer.whole ? <p className="wardian-Note">{trans.__('There is more in this folder than is listed.')}</p> : null}
    </div>
  );
}
