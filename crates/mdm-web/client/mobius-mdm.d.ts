// Types of mobius-mdm.js: the events of docs/events.md, and the stream that brings them.

export type DeviceStatus = "pending" | "enrolled" | "online" | "offline" | "unenrolled";
export type CommandStatus =
  | "pending"
  | "sent"
  | "running"
  | "completed"
  | "failed"
  | "expired"
  | "cancelled"
  | "unknown";
export type CommandName =
  | "system_info"
  | "collect_logs"
  | "run_script"
  | "run_osquery"
  | "install_app"
  | "uninstall_app"
  | "lock"
  | "restart"
  | "shutdown"
  | "wipe"
  | "refresh_inventory"
  | "apply_policies";
export type ComplianceState = "compliant" | "non_compliant" | "pending" | "error" | "not_applicable";
export type InstallState = "pending" | "installing" | "installed" | "uninstalling" | "uninstalled" | "failed";
export type InstallIntent = "install" | "available" | "uninstall";
export type Role = "viewer" | "operator" | "admin";

/** What an assignment is to: a device or a group. */
export type Target = { device_id: string; group_id?: never } | { group_id: string; device_id?: never };

/** The `data` of each type of event. */
export interface EventDataByType {
  /** Enrolled, online, offline, unenrolled. `old_status` is empty at the first enrolment. */
  device_status_change: {
    device_id: string;
    old_status: DeviceStatus | "";
    new_status: DeviceStatus;
  };
  /** Changed by an operator, or by what the device reports. */
  device_updated: {
    device_id: string;
    hostname: string;
    os_version: string | null;
    labels: Record<string, string>;
    version: number;
  };
  /** Each step of a command. Viewers get no `result`. */
  command_execution: {
    command_id: string;
    device_id: string;
    command: CommandName;
    status: CommandStatus;
    result?: unknown;
  };
  /** A policy was assigned or taken away. */
  policy_assignment: { policy_id: string; action: "assigned" | "unassigned" } & Target;
  /** A device came into a group or left it. */
  group_membership: {
    group_id: string;
    device_id: string;
    action: "added" | "removed";
    source: "manual" | "filter";
  };
  policy_changed: {
    policy_id: string;
    action: "created" | "updated" | "deleted";
    name: string;
    enabled: boolean;
    version: number;
  };
  /** Where a device stands towards a policy. */
  compliance_change: {
    policy_id: string;
    device_id: string;
    old_state: ComplianceState;
    new_state: ComplianceState;
  };
  /** An assignment also has its target and its intent. */
  application_changed: {
    application_id: string;
    name: string;
    version: string;
  } & (
    | { action: "created" | "updated" | "deleted" }
    | ({ action: "assigned" | "unassigned"; intent?: InstallIntent } & Target)
  );
  application_install: {
    application_id: string;
    device_id: string;
    state: InstallState;
    error?: string;
  };
  /** For administrators. */
  license_changed: {
    tier: "community" | "professional" | "enterprise";
    state: "valid" | "grace" | "expired";
    device_limit: number | null;
    expires_at: string | null;
  };
  /** Of users and API keys. For administrators. */
  user_changed: {
    user_id: string;
    api_key_id?: string;
    action: "created" | "updated" | "deleted";
    role: Role;
    disabled: boolean;
  };
  /** Of webhooks; `disabled` by the server. For administrators. */
  webhook_changed: {
    webhook_id: string;
    action: "created" | "updated" | "deleted" | "disabled";
    name: string;
    enabled: boolean;
    reason?: string;
  };
}

export type EventType = keyof EventDataByType;

/** An event of one type. */
export interface EventOf<Type extends EventType> {
  /** The cursor behind this event; opaque. Within an epoch its text order is the log's order. */
  id: string;
  type: Type;
  /** RFC 3339, UTC, with milliseconds. */
  timestamp: string;
  data: EventDataByType[Type];
}

/** An event: `type` tells what `data` holds. */
export type MdmEvent = { [Type in EventType]: EventOf<Type> }[EventType];

export interface Filters {
  /** Only events of these types; of all if empty. */
  types?: readonly EventType[];
  /** Only events of these devices, by the server's ids. */
  deviceIds?: readonly string[];
  groupIds?: readonly string[];
}

export type StreamState = "connecting" | "open" | "waiting" | "paused" | "closed";

export interface StateChange {
  state: StreamState;
  /** Of `waiting`: how many milliseconds until the next attempt. */
  delay?: number;
  /** Of `waiting` and `closed`: the WebSocket close code, if one came. */
  code?: number;
  reason?: string;
}

/** The server could not go on behind the cursor: events may be missing. Read the state anew. */
export interface Resync {
  reason: "too_old" | "other_epoch" | "from_the_future" | "new_epoch";
  cursor: string;
}

export interface Welcome {
  connection_id: string;
  cursor: string;
  recovered: boolean;
  replayed: number;
  heartbeat_seconds: number;
  token_expires_at: string;
}

export interface Closed {
  code: number;
  reason: string;
  /** Absent if `close()` was called. */
  error?: StreamClosedError;
}

/** What `on` can be asked for, and what the listener is called with. */
export type Listened = { [Type in EventType]: EventOf<Type> } & {
  /** Every event, whatever its type. */
  event: MdmEvent;
  state: StateChange;
  resync: Resync;
  /** What went wrong. The stream goes on unless `closed` follows. */
  error: Error;
  /** The stream ended for good. */
  closed: Closed;
  /** Control frames. */
  welcome: Welcome;
  heartbeat: { cursor: string };
  subscribed: { types: EventType[]; device_ids: string[]; group_ids: string[] };
  token_expiring: { token_expires_at: string };
  authenticated: { token_expires_at: string };
};

type Wait<T> = T | Promise<T>;

/** The way to be let in. If several are given, `getTicket` opens connections. */
type Access =
  | { token: string; getToken?: GetToken; getTicket?: GetTicket }
  | { token?: string; getToken: GetToken; getTicket?: GetTicket }
  | { token?: string; getToken?: GetToken; getTicket: GetTicket };

/**
 * Gives an access token. Called with the one that is in use when that one ends or may have been
 * refused: the answer has to be a newer one of the same session. Nothing means that the user is
 * signed out, and ends the stream; if it throws, the stream tries again. Never called twice at once.
 */
export type GetToken = (inUse?: string) => Wait<string | null | undefined>;

/** Gives a ticket that opens one connection: the answer of `POST /api/v1/auth/ws-ticket`, or its text. */
export type GetTicket = () => Wait<string | { ticket: string } | null | undefined>;

export type EventStreamOptions = Filters &
  Access & {
    /** The server, such as `https://mdm.example.org`, or the stream's own address. By default the page's server. */
    url?: string | URL;
    /** Go on behind this event: a `cursor` of earlier. By default events begin now. */
    after?: string;
    /** How many events may wait for a `for await` loop, by default 1000. */
    maxQueued?: number;
    /** Instead of the global one, for example that of the package `ws`. */
    WebSocket?: new (url: string, protocols?: string[]) => unknown;
    setTimeout?: (callback: () => void, milliseconds: number) => unknown;
    clearTimeout?: (timer: any) => void;
    /** From 0 up to 1, as `Math.random`. */
    random?: () => number;
  };

/** A subscription that outlives its connections. It connects as soon as it is made. */
export class EventStream implements AsyncIterable<MdmEvent> {
  constructor(options: EventStreamOptions);
  readonly state: StreamState;
  /** Behind which event to go on. Events that still wait for a `for await` loop are not behind it. */
  readonly cursor: string | undefined;
  readonly filters: Required<Filters>;
  /** Returns what ends the listening. */
  on<Name extends keyof Listened>(name: Name, listener: (value: Listened[Name]) => unknown): () => void;
  /** Replaces all filters, now and for every connection to come. */
  subscribe(filters?: Filters): void;
  /** Asks `getToken` for a newer token and tells it to the server. False if there is no connection. */
  renew(): Promise<boolean>;
  close(): void;
  /** Leaving the loop closes the stream; if the server ends the stream, the loop throws. */
  [Symbol.asyncIterator](): AsyncIterator<MdmEvent, undefined>;
}

/** Why a stream ended for good. */
export class StreamClosedError extends Error {
  readonly code: number;
  readonly reason: string;
}

/** A message that the server did not take. */
export class StreamMessageError extends Error {
  readonly code: "BAD_MESSAGE" | "INVALID_FILTER" | "TOKEN_REFUSED" | "OTHER_SESSION";
}
