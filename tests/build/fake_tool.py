# SPDX-License-Identifier: Apache-2.0
"""A FAKE of the vendor's tools, for tests only: it computes nothing.

Installed by ``fakes.py`` under the names of the tools. It takes the arguments that the real ones take,
refuses others as they do, prints lines and writes reports of the same form (as public logs and reports
show them), and leaves a record of every call. What it is to do wrong stands in ``behaviour.json``
beside it.
"""

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = Path(sys.argv[0]).name
ARGS = sys.argv[1:]
BEHAVIOUR = json.loads((HERE / "behaviour.json").read_text())
RELEASE = BEHAVIOUR.get("releases", {}).get(NAME, BEHAVIOUR["release"])
FAKE = "FAKE TOOL of the tests of torch2fpga, nothing is computed"


def die(*lines):
    """Print errors as the tool does, and fail."""
    print(*lines, sep="\n", flush=True)
    sys.exit(1)


def option(name):
    """Value behind an option that has to be there."""
    if name not in ARGS or ARGS.index(name) + 1 >= len(ARGS):
        die(f"ERROR: [{NAME} 60-402] option {name} is missing")
    return ARGS[ARGS.index(name) + 1]


def only(flags, valued):
    """Positional arguments; any other option is an error."""
    rest, skip = [], False
    for argument in ARGS:
        if skip:
            skip = False
        elif argument in valued:
            skip = True
        elif argument in flags or argument.startswith("-I"):
            continue
        elif argument.startswith("-"):
            die(f"ERROR: [{NAME} 82-301] Unrecognized option: {argument}")
        else:
            rest.append(argument)
    return rest


def behave(step):
    """Do what the test asked for at this step: hang, fail, or leave no report."""
    print(f"INFO: [{NAME} 1-1] {FAKE}: {step}", flush=True)
    if step in BEHAVIOUR.get("hang", []):
        (HERE / f"hangs-{step.replace(':', '-')}").write_text(str(os.getpid()))
        time.sleep(600)
    time.sleep(BEHAVIOUR.get("sleep", 0))
    if step in BEHAVIOUR.get("fail", {}):
        die("WARNING: [HLS 200-40] no", *BEHAVIOUR["fail"][step])
    if step in BEHAVIOUR.get("silent", []):
        sys.exit(0)


def version():
    build = "SW Build 3526262 on Mon Apr 18 15:47:01 MDT 2022"
    if NAME == "xclbinutil":
        print(f"XRT Build Version: 2.13.466 ({RELEASE})\n       Build Date: 2022-04-14 17:43:11")
    elif NAME == "vitis_hls":
        print(f"Vitis HLS - High-Level Synthesis from C, C++ and OpenCL v{RELEASE} (64-bit)\n{build}")
    elif NAME == "vivado":
        print(f"Vivado v{RELEASE} (64-bit)\n{build}")
    else:
        print(f"\n****** {NAME} v{RELEASE} (64-bit)\n  **** SW Build 3524075 on 2022-04-13-17:42:45\n")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# -- Vitis HLS ------------------------------------------------------------------------------------


def resources(values, spread):
    tags = {"bram18": "BRAM_18K", "dsp": "DSP", "ff": "FF", "lut": "LUT", "uram": "URAM"}
    return "".join(f"<{tag}>{int(values.get(key, 0) * spread)}</{tag}>\n" for key, tag in tags.items())


def loop_xml(loop, slow):
    ii = slow.get(loop["label"], loop["ii"])
    return (
        f"<{loop['label']}>\n<Name>{loop['label']}</Name>\n<Slack>2.92</Slack>\n"
        f"<TripCount>undef</TripCount>\n<Latency>undef</Latency>\n<PipelineII>{ii}</PipelineII>\n"
        f"<PipelineDepth>{loop['depth'] + 3}</PipelineDepth>\n<PipelineType>yes</PipelineType>\n"
        f"<InstanceList/>\n</{loop['label']}>\n"
    )


def module_xml(name, loops, values, slow):
    found = "".join(loop_xml(loop, slow) for loop in loops)
    return (
        f"<Module>\n<Name>{name}</Name>\n<PerformanceEstimates>\n<SummaryOfOverallLatency>\n"
        "<Worst-caseLatency>undef</Worst-caseLatency>\n</SummaryOfOverallLatency>\n"
        f"<SummaryOfLoopLatency>\n{found}</SummaryOfLoopLatency>\n</PerformanceEstimates>\n"
        f"<AreaEstimates>\n<Resources>\n{resources(values, 1)}</Resources>\n</AreaEstimates>\n</Module>\n"
    )


def instance(name, module, inner):
    return f"<Instance>\n<InstName>{name}</InstName>\n<ModuleName>{module}</ModuleName>\n{inner}</Instance>\n"


def csynth_xml(kernel, root):
    """A report in the vendor's form; its figures are the project's own estimates, a little worse."""
    data = json.loads((root / "estimates.json").read_text())
    (found,) = [k for k in data["kernels"] if k["name"] == kernel]
    slow, modules, instances = BEHAVIOUR.get("slow", {}), "", ""
    for p in found["processes"]:
        name = p["module"] if p["module"].endswith("_turns") else p["module"] + "_s"
        outlined = f"{p['module']}_Pipeline_{p['loops'][-1]['label']}" if p["loops"] else ""
        modules += module_xml(name, p["loops"][:-1], {"dsp": p["dsp"] or 0}, slow)
        inner = ""
        if outlined:
            modules += module_xml(outlined, p["loops"][-1:], {}, slow)
            inner = f"<InstancesList>\n{instance('grp', outlined, '')}</InstancesList>\n"
        instances += instance(f"{name}_U0", name, inner)
    available = {"bram18": 4032, "dsp": 9024, "ff": 2607360, "lut": 1303680, "uram": 960}
    return (
        f"<profile>\n<ReportVersion>\n<Version>{RELEASE}</Version>\n</ReportVersion>\n<UserAssignments>\n"
        f"<unit>ns</unit>\n<Part>xcu280-fsvh2892-2L-e</Part>\n<TopModelName>{kernel}</TopModelName>\n"
        "<TargetClockPeriod>4.00</TargetClockPeriod>\n<ClockUncertainty>1.08</ClockUncertainty>\n"
        "</UserAssignments>\n<PerformanceEstimates>\n<PipelineType>dataflow</PipelineType>\n"
        "<SummaryOfTimingAnalysis>\n<unit>ns</unit>\n<EstimatedClockPeriod>3.125</EstimatedClockPeriod>\n"
        "</SummaryOfTimingAnalysis>\n</PerformanceEstimates>\n<AreaEstimates>\n<Resources>\n"
        f"{resources(found['resources'], 1.5)}</Resources>\n<AvailableResources>\n{resources(available, 1)}"
        f'</AvailableResources>\n</AreaEstimates>\n<RTLDesignHierarchy>\n<TopModule MAX_DEPTH="3">\n'
        f"<ModuleName>{kernel}</ModuleName>\n<InstancesList>\n{instances}</InstancesList>\n</TopModule>\n"
        f"</RTLDesignHierarchy>\n<ModuleInformation>\n{modules}</ModuleInformation>\n</profile>\n"
    )


def hls(step, kernel, root, made):
    """What a step of Vitis HLS leaves under a solution."""
    source = root / "kernels" / f"{kernel}.cpp"
    if not source.is_file():
        die(f"ERROR: [HLS 200-70] cannot open {source}", "ERROR: [HLS 200-1715] Encountered problem")
    behave(f"{step}:{kernel}")
    if step == "csim":
        print("INFO: [SIM 211-1] CSim done with 0 errors.")
        report = made / "csim" / "report" / f"{kernel}_csim.log"
        write(report, f"{FAKE}\nINFO: [SIM 1] CSim done with 0 errors.\n")
        return
    print("INFO: [HLS 200-789] **** Estimated Fmax: 320.00 MHz")
    report = made / "syn" / "report" / "csynth.xml"
    write(report, BEHAVIOUR.get("reports", {}).get(kernel) or csynth_xml(kernel, root))
    if step == "cosim":
        write(made / "sim" / "report" / f"{kernel}_cosim.rpt", f"{FAKE}\n|   Verilog|      Pass|\n")


def vitis_hls():
    if only((), ("-f",)):
        die("ERROR: [HLS 200-101] unexpected argument")
    script = Path(option("-f"))
    if not script.is_file():
        die(f'couldn\'t read file "{script}": no such file or directory')
    step = os.environ.get("T2F_STEP", "")
    if step not in ("csim", "csynth", "cosim", "export"):
        die(f"T2F_STEP is {step}")
    (kernel,) = re.findall(r"^set_top (\w+)$", script.read_text(), re.MULTILINE)
    print(f"INFO: [HLS 200-10] For user 'x' on host 'y' in directory '{Path.cwd()}'")
    hls(step, kernel, script.resolve().parent.parent, Path(f"{kernel}_{step}/solution1"))


def unified(step):
    config, work = Path(option("--config")), Path(option("--work_dir"))
    (kernel,) = re.findall(r"^syn\.top=(\w+)$", config.read_text(), re.MULTILINE)
    hls(step, kernel, config.resolve().parent.parent, work / "hls")


def vitis_run():
    rest = only(("--csim", "--cosim"), ("--mode", "--config", "--work_dir"))
    if rest or option("--mode") != "hls":
        die(f"ERROR: [vitis-run 60-1] unexpected {rest}")
    unified("csim" if "--csim" in ARGS else "cosim")


# -- v++ and what comes with it -------------------------------------------------------------------


def vpp():
    if "--compile" in ARGS and "--mode" in ARGS:
        only(("--compile",), ("--mode", "--config", "--work_dir"))
        return unified("csynth")
    valued = (
        "-t",
        "--platform",
        "--kernel_frequency",
        "-k",
        "--temp_dir",
        "--config",
        "-o",
        "--package.out_dir",
        "--vivado.prop",
    )
    files = only(("-c", "-l", "-p", "--save-temps", "-g"), valued)
    target, made = option("-t"), Path(option("-o"))
    print(f"\n****** v++ v{RELEASE} (64-bit)\n  **** SW Build 3524075 on 2022-04-13-17:42:45\n")
    if target not in ("hw", "hw_emu") or ("-g" in ARGS) != (target != "hw"):
        die(f"ERROR: [v++ 60-1] target {target}")
    for file in files:
        if not Path(file).is_file():
            die(f"ERROR: [v++ 60-602] Source file does not exist: {file}")
    if "-c" in ARGS:
        compile_kernel(target, made, files)
    elif "-l" in ARGS:
        link(target, made, files)
    else:
        behave(f"package-{target}")
        Path(option("--package.out_dir")).mkdir(parents=True, exist_ok=True)
        made.write_text(f"{FAKE}\nxclbin\n" + Path(files[0]).read_text())
    print(f"INFO: [v++ 60-586] Created {made}\nINFO: [v++ 60-791] Total elapsed time: 0h 0m 1s")


def compile_kernel(target, made, files):
    kernel = option("-k")
    option("--platform"), option("--kernel_frequency")
    if files != [f"kernels/{kernel}.cpp"]:
        die(f"ERROR: [v++ 60-2] sources {files}")
    behave(f"compile-{target}:{kernel}")
    content = hashlib.sha256(Path(files[0]).read_bytes()).hexdigest()
    made.write_text(f"{FAKE}\nobject {kernel} {content}\n")


def link(target, made, files):
    config = Path(option("--config")).read_text()
    kernels = re.findall(r"^nk=(\w+):1:\w+$", config, re.MULTILINE)
    if sorted(Path(f).stem for f in files) != sorted(kernels):
        die(f"ERROR: [CFGEN 83-2298] kernels {kernels} but objects {files}")
    print("[13:31:18] Run vpl: Step impl: Started", flush=True)
    behave(f"link-{target}")
    made.write_text(f"{FAKE}\n" + "".join(Path(f).read_text() for f in files))
    if target == "hw":
        place = Path(option("--temp_dir")) / "reports" / "link" / "imp"
        report = place / "impl_1_hw_bb_locked_timing_summary_routed.rpt"
        write(report, BEHAVIOUR.get("timing") or timing("0.012"))
        write(place / "impl_1_kernel_util_routed.rpt", utilisation(kernels))
    print("[13:36:54] Run vpl: Step impl: Completed")


def timing(wns):
    rule = "-" * 96
    return (
        f"{rule}\n| Design Timing Summary\n| ---------------------\n{rule}\n\n"
        "    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)  \n"
        "    -------      -------  ---------------------  -------------------      -------      -------  \n"
        f"      {wns}        0.000                      0              1048576        0.010        0.000  \n"
    )


def utilisation(kernels):
    rule = "+" + "-" * 30 + "+"
    head = "| Name | LUT | LUTAsMem | REG | BRAM | URAM | DSP |"
    cells = (
        "120401 [  9.24%] | 19539 [  3.25%] | 186047 [  7.14%] | 180 [  8.93%] | 0 [  0.00%] | 4 [  0.04%] |"
    )
    rows = [f"| Platform | {cells}", f"|    Used Resources | {cells}"]
    for kernel in kernels:
        own = "70000 [ 6.00%] | 10 [ 0.00%] | 60000 [ 2.50%] | 90.5 [ 4.50%] | 128 [13.33%] | 1086 [<0.01%] |"
        rows += [f"| {kernel} | {own}", f"|    {kernel}_1 | {own}"]
    return "\n".join([rule, head, rule, *rows, rule, ""])


def xclbinutil():
    only(("--quiet", "--force"), ("--info", "--input"))
    if not Path(option("--input")).is_file():
        die("ERROR: the input file does not exist")
    behave("info")
    text = (
        f"{'XRT Build Version':>17}: 2.13.466 ({RELEASE})\n"
        + "=" * 78
        + "\nxclbin Information\n------------------\n"
        f"   Generated by:           v++ ({RELEASE}) on 2022-04-14\n   Kernels:                {FAKE}\n"
        + "="
        * 78
        + "\nScalable Clocks\n---------------\n"
        "   Name:      DATA_CLK\n   Index:     0\n   Type:      DATA\n   Frequency: 243 MHz\n\n"
        "   Name:      KERNEL_CLK\n   Index:     1\n   Type:      KERNEL\n   Frequency: 500 MHz\n\n"
        "System Clocks\n------\n"
        "   Name:           ulp_ucs_aclk_kernel_00 \n   Type:           SCALABLE \n"
        "   Default Freq:   300 MHz\n   Requested Freq: 250 MHz\n   Achieved Freq:  243.1 MHz\n"
        + "=" * 78
        + "\nMemory Configuration\n--------------------\n   Name:         HBM[0]\n   Index:        0\n"
    )
    write(Path(option("--info")), BEHAVIOUR.get("info") or text)


def platforminfo():
    only((), ("-p",))
    text = Path(option("-p")).read_text()
    if "xpfm" not in text:
        die(f"ERROR: [platforminfo] {option('-p')} is no platform")
    print("==========================\nBasic Platform Information\n==========================")


def emconfigutil():
    only((), ("--platform", "--od"))
    behave("emconfig")
    write(Path(option("--od")) / "emconfig.json", '{"Version": {"FileVersion": "2.0"}}\n')


def main():
    with (HERE / "calls.jsonl").open("a") as stream:
        record = {"tool": NAME, "args": ARGS, "cwd": os.getcwd(), "pid": os.getpid()}
        stream.write(json.dumps(record) + "\n")
    if ARGS == ["--version"]:
        if NAME in BEHAVIOUR.get("mute", []):
            print("no idea")
            return
        version()
        return
    known = {
        "vitis_hls": vitis_hls,
        "vitis-run": vitis_run,
        "v++": vpp,
        "xclbinutil": xclbinutil,
        "platforminfo": platforminfo,
        "emconfigutil": emconfigutil,
    }
    known[NAME]()


main()
