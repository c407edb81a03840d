import { type RealSubject } from './subject.js';
import { type Body, type Setting, type Stage } from './stage.js';
import { type Timeline } from './timeline.js';
export abstract class RealStage implements Stage {
  static async open(_subject: RealSubject, _setting: Setting): Promise<RealStage> {
    throw new Error('not yet');
  }
  abstract run(body: Body): Promise<void>;
  abstract close(): Promise<void>;
  abstract readonly timeline: Timeline;
  abstract readonly setting: Stage['setting'];
  abstract readonly attachment: Stage['attachment'];
  abstract readonly layout: Stage['layout'];
  abstract readonly contents: Stage['contents'];
  abstract readonly sites: Stage['sites'];
  abstract readonly source: Stage['source'];
  abstract readonly exact: boolean;
  abstract readonly port: Stage['port'];
  abstract readonly pager: Stage['pager'];
  abstract touch: Stage['touch'];
  abstract discard: Stage['discard'];
  abstract unmap: Stage['unmap'];
  abstract breakHandler: Stage['breakHandler'];
  abstract look: Stage['look'];
  abstract watch: Stage['watch'];
  abstract note: Stage['note'];
}
