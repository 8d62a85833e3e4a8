/** What the server's REST interface and events tell, as docs/lab-server.md and its OpenAPI document have it. A key without a value is left out. */

export type State = 'absent' | 'ready' | 'incomplete' | 'stopped' | 'unreachable';
export type WholeState = 'absent' | 'ready' | 'partial';

export interface IProblem {
  text: string;
  message: string;
  field: string;
  file: string;
  line?: number;
  column?: number;
}

/** cpu: processors in use since the last look; memory: bytes. */
export interface IUsage {
  cpu_seconds: number;
  memory: number;
  cpu?: number;
}

export interface INode {
  state: State;
  roles: string[];
  hostname: string;
  addresses: Record<string, string>;
  group?: string;
  index?: number;
  detail?: string;
  site?: string;
  image?: string;
  cpus?: number;
  memory?: number;
  usage?: IUsage;
}

export interface INetwork {
  state: State;
  subnet?: string;
  gateway?: string;
  mtu?: number;
  detail?: string;
}

/** One direction of a link. delay and jitter: seconds; loss, duplicate and reorder: fractions; rate: bits a second. */
export interface IShape {
  delay?: number;
  jitter?: number;
  loss?: number;
  rate?: number;
}

export interface ILink {
  kind: 'link' | 'access';
  ends: string[];
  ways: Record<string, IShape>;
  text: Record<string, string>;
  state: State;
  mtu?: number;
}

export interface IService {
  service: string;
  node: string;
  state: State;
  detail?: string;
}

/** A fault in force; times in seconds since the epoch. */
export interface IFault {
  kind: string;
  targets: string[];
  nodes: string[];
  text: string;
  began: number;
  by: string;
  until?: number;
}

export interface ILease {
  end: number;
  at_end: 'down' | 'keep';
  extendable: boolean;
}

/** One thing that happened, or that goes on where `ended` is missing; times in seconds since the epoch. */
export interface IEntry {
  id: string;
  kind: 'operation' | 'run' | 'cell' | 'transfer' | 'event';
  started: number;
  ended?: number;
  status: 'running' | 'ok' | 'failed' | 'cancelled' | 'interrupted';
  summary: string;
  nodes: string[];
  detail: Record<string, unknown>;
  environment?: string;
  run?: string;
  error?: string;
}

export interface IError {
  message: string;
  kind?: string;
  remedy?: string;
  problems?: IProblem[];
}

export interface IEnvironment {
  path: string;
  instance: string;
  state: WholeState;
  problems: IProblem[];
  nodes: Record<string, INode>;
  networks: Record<string, INetwork>;
  links: Record<string, ILink>;
  services: Record<string, IService>;
  faults: Record<string, IFault>;
  running: Record<string, IEntry>;
  tasks?: Record<string, ITask>;
  /** What links carry, bits a second by link and way: those that carry anything, while somebody wants to know. */
  traffic?: Record<string, Record<string, number>>;
  /** What nodes send to each other, bits a second by sender and receiver, as long, and where it is counted. */
  talk?: Record<string, Record<string, number>>;
  /** Ports that are open on the server's machine, by id. */
  ports?: Record<string, { node: string; port: number; here: number }>;
  experiment?: { name: string; provider: string; description?: string; parameters: Record<string, IParameter> };
  record?: { id: string; name: string; instance: string; provider: string; created: number; parameters: Record<string, unknown> };
  lease?: ILease;
  trouble?: IError;
}

export interface IParameter {
  default?: unknown;
  description?: string;
}

export interface IPlanned {
  id: number;
  action: 'create' | 'update' | 'delete';
  kind: string;
  targets: string[];
  reason: string;
}

export interface ICaveat {
  resource: string;
  field: string;
  message: string;
  stand_in?: string | null;
}

export interface IPlan {
  digest: string;
  text: string;
  summary: string;
  removes: string[];
  operations: IPlanned[];
  caveats: ICaveat[];
}

export interface INodeReport {
  name: string;
  node: INode;
  reachable: boolean;
  trouble?: string;
  kernels?: { id: string; language: string; state: string; attached: boolean; pid?: number }[];
  services?: { service: string; state: string; pid?: number; exit_code?: number; restarts?: number }[];
}

/** An experiment file below the server's root. instances: those that are up. */
export interface IExperiment {
  path: string;
  name: string;
  instances: string[];
}

/** One operation of a task. state: waiting, started, done, failed or skipped. */
export interface IStep {
  action: string;
  kind: string;
  targets: string;
  count: number;
  reason: string;
  state: string;
  resources: Record<string, string>;
  started?: number;
  ended?: number;
  error?: string;
}

/** Growing or tearing down, as a task of the server. */
export interface ITask {
  id: string;
  kind: 'up' | 'down';
  instance: string;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  started: number;
  ended?: number;
  operations: Record<string, IStep>;
  words?: Record<string, string>;
  error?: IError;
}

/** A port of a node that is open on the server's machine. */
export interface IOpenPort {
  id: string;
  node: string;
  port: number;
  here: number;
  url: string;
  connections: number;
  trouble?: string;
}

export interface IListing {
  folder: string;
  items: { name: string; kind: 'file' | 'folder' | 'link' | 'other'; size: number; changed: number }[];
  whole: boolean;
}
