import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { IError, IProblem } from './types';

const BASE = 'wardian/api';

export type Query = Record<string, string | number | string[]>;

/** What the server says of a request that it could not do. */
export class ServerError extends Error {
  readonly status: number;
  readonly remedy: string | undefined;
  readonly problems: IProblem[];
  /** The whole answer: some say more than what went wrong. */
  readonly answer: unknown;

  constructor(status: number, answer: Partial<IError>, otherwise: string) {
    super(answer.message || otherwise);
    this.status = status;
    this.remedy = answer.remedy;
    this.problems = answer.problems ?? [];
    this.answer = answer;
  }
}

/** The REST interface of the server extension. */
export class Server {
  readonly settings: ServerConnection.ISettings;

  constructor(settings: ServerConnection.ISettings) {
    this.settings = settings;
  }

  get<T>(route: string, query: Query = {}): Promise<T> {
    return this.request<T>('GET', route, query);
  }

  post<T>(route: string, body: object): Promise<T> {
    return this.request<T>('POST', route, {}, body);
  }

  /** The JSON of an answer. Throws ServerError, and NetworkError where there is no answer. */
  async request<T>(method: string, route: string, query: Query = {}, body?: object): Promise<T> {
    return this._answer<T>(route, query, body ? { method, body: JSON.stringify(body) } : { method });
  }

  /** Send a file. */
  async put<T>(route: string, query: Query, body: Blob): Promise<T> {
    return this._answer<T>(route, query, { method: 'PUT', body, headers: { 'Content-Type': 'application/octet-stream' } });
  }

  private async _answer<T>(route: string, query: Query, init: RequestInit): Promise<T> {
    const response = await ServerConnection.makeRequest(this.url(route, query), init, this.settings);
    const text = await response.text();
    const answer = response.headers.get('Content-Type')?.startsWith('application/json') && text ? JSON.parse(text) : {};
    if (!response.ok) {
      throw new ServerError(response.status, answer, response.statusText);
    }
    return answer as T;
  }

  url(route: string, query: Query = {}): string {
    return URLExt.join(this.settings.baseUrl, BASE, route) + parameters(query);
  }

  /** Open a websocket. */
  socket(route: string, query: Query): WebSocket {
    const token: Query = this.settings.appendToken && this.settings.token ? { token: this.settings.token } : {};
    return new this.settings.WebSocket(URLExt.join(this.settings.wsUrl, BASE, route) + parameters({ ...query, ...token }));
  }
}

function parameters(query: Query): string {
  const pairs = Object.entries(query).flatMap(([key, value]) => [value].flat().map(item => [key, String(item)]));
  return pairs.length ? `?${new URLSearchParams(pairs)}` : '';
}
