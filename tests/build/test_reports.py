# SPDX-License-Identifier: Apache-2.0
"""Reports of C synthesis in the vendor's form are read; anything else is refused with file and line.

The texts are written by hand after public reports of Vitis HLS 2022.1 and 2023.1; none of them comes
from a run on this project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from torch2fpga.build import BuildError
from torch2fpga.build.reports import LoopReport, parse_xml, read_csynth
from torch2fpga.build.text_report import read_csynth_text

MODULE = """\
        <Module>
            <Name>scale_WideConfig_Pipeline_COLUMN</Name>
            <Loops>
                <COLUMN/>
            </Loops>
            <PerformanceEstimates>
                <SummaryOfOverallLatency>
                    <Worst-caseLatency>undef</Worst-caseLatency>
                    <PipelineInitiationInterval>948 ~ 4728</PipelineInitiationInterval>
                </SummaryOfOverallLatency>
                <SummaryOfLoopLatency>
                    <COLUMN>
                        <Name>COLUMN</Name>
                        <Slack>2.92</Slack>
                        <TripCount>
                            <range>
                                <min>1</min>
                                <max>512</max>
                            </range>
                        </TripCount>
                        <Latency>30 ~ 541</Latency>
                        <PipelineII>2</PipelineII>
                        <PipelineDepth>17</PipelineDepth>
                        <PipelineType>yes</PipelineType>
                        <InstanceList/>
                    </COLUMN>
                </SummaryOfLoopLatency>
            </PerformanceEstimates>
            <AreaEstimates>
                <Resources>
                    <DSP>15</DSP>
                    <AVAIL_DSP>9024</AVAIL_DSP>
                    <UTIL_DSP>~0</UTIL_DSP>
                    <FF>2483</FF>
                    <LUT>1798</LUT>
                </Resources>
            </AreaEstimates>
        </Module>
"""

REPORT = f"""\
<profile>
    <ReportVersion>
        <Version>2022.1</Version>
    </ReportVersion>
    <UserAssignments>
        <unit>ns</unit>
        <ProductFamily>virtexuplusHBM</ProductFamily>
        <Part>xcu280-fsvh2892-2L-e</Part>
        <TopModelName>krnl</TopModelName>
        <TargetClockPeriod>4.00</TargetClockPeriod>
        <ClockUncertainty>1.08</ClockUncertainty>
        <FlowTarget>vitis</FlowTarget>
    </UserAssignments>
    <PerformanceEstimates>
        <PipelineType>dataflow</PipelineType>
        <SummaryOfTimingAnalysis>
            <unit>ns</unit>
            <EstimatedClockPeriod>2.920</EstimatedClockPeriod>
        </SummaryOfTimingAnalysis>
        <SummaryOfLoopLatency>
            <OUTER>
                <Name>OUTER</Name>
                <TripCount>undef</TripCount>
                <Latency>undef</Latency>
                <IterationLatency>277</IterationLatency>
                <PipelineDepth>277</PipelineDepth>
                <PipelineType>no</PipelineType>
                <INNER>
                    <Name>INNER</Name>
                    <TripCount>16</TripCount>
                    <Latency>32</Latency>
                    <PipelineII>1</PipelineII>
                    <PipelineDepth>4</PipelineDepth>
                </INNER>
            </OUTER>
        </SummaryOfLoopLatency>
    </PerformanceEstimates>
    <AreaEstimates>
        <Resources>
            <BRAM_18K>30</BRAM_18K>
            <DSP>156</DSP>
            <FF>30761</FF>
            <LUT>28240</LUT>
            <URAM>0</URAM>
        </Resources>
        <AvailableResources>
            <BRAM_18K>4032</BRAM_18K>
            <DSP>9024</DSP>
            <FF>2607360</FF>
            <LUT>1303680</LUT>
            <URAM>960</URAM>
        </AvailableResources>
    </AreaEstimates>
    <RTLDesignHierarchy>
        <TopModule MAX_DEPTH="4">
            <ModuleName>krnl</ModuleName>
            <InstancesList>
                <Instance>
                    <InstName>scale_WideConfig_U0</InstName>
                    <ModuleName>scale_WideConfig_s</ModuleName>
                    <InstancesList>
                        <Instance>
                            <InstName>grp_fu_44</InstName>
                            <ModuleName>scale_WideConfig_Pipeline_COLUMN</ModuleName>
                        </Instance>
                    </InstancesList>
                </Instance>
            </InstancesList>
        </TopModule>
    </RTLDesignHierarchy>
    <ModuleInformation>
{MODULE}{
    MODULE.replace("_Pipeline_COLUMN", "_s")
    .replace("<COLUMN", "<ROW")
    .replace("</COLUMN", "</ROW")
    .replace("COLUMN</Name>", "ROW</Name>")
}    </ModuleInformation>
</profile>
"""


def written(tmp_path: Path, text: str, name: str = "csynth.xml") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def test_csynth_is_read(tmp_path: Path) -> None:
    report = read_csynth(written(tmp_path, REPORT), "krnl")
    assert (report.version, report.part) == ("2022.1", "xcu280-fsvh2892-2L-e")
    assert (report.target_ns, report.uncertainty_ns, report.estimated_ns) == (4.0, 1.08, 2.92)
    assert report.estimated_mhz == pytest.approx(342.47, abs=0.01)
    assert report.resources == {"dsp": 156, "lut": 28240, "ff": 30761, "bram18": 30, "uram": 0}
    assert report.available["uram"] == 960
    assert report.modules["krnl"].loops == (
        LoopReport("OUTER", None, None, None),  # not pipelined: its depth is none of a pipeline
        LoopReport("INNER", 1, 4, (16, 16)),
    )
    below = report.below("scale_WideConfig_s")
    assert [m.name for m in below] == ["scale_WideConfig_s", "scale_WideConfig_Pipeline_COLUMN"]
    assert below[1].loops == (LoopReport("COLUMN", 2, 17, (1, 512)),)
    assert below[1].resources == {"dsp": 15, "lut": 1798, "ff": 2483, "bram18": 0, "uram": 0}
    assert report.below("nothing") == ()


@pytest.mark.parametrize(
    ("old", "new", "at", "reason"),
    [
        ("<DSP>156</DSP>", "<DSP>many</DSP>", "<DSP>many", "<DSP> is 'many', expected a count"),
        ("<DSP>156</DSP>", "<DSP>-1</DSP>", "<DSP>-1", "<DSP> is '-1', expected a count"),
        ("<DSP>156</DSP>", "<DSP>1e3</DSP>", "<DSP>1e3", "<DSP> is '1e3', expected a count"),
        ("<PipelineII>1<", "<PipelineII>1.5<", ">1.5<", "<PipelineII> is '1.5', expected a count"),
        ("2.920", "fast", "fast", "<EstimatedClockPeriod> is 'fast', expected nanoseconds"),
        ("krnl</Top", "other</Top", "other</Top", "it is about 'other', expected 'krnl'"),
        ("<AvailableResources>", "<Available>", "</AvailableResources>", "no XML (mismatched tag)"),
        ("<min>1</min>", "", "<range>", "<range> has 0 <min>, expected one"),
        ("</profile>\n", "", "", "no XML (no element found)"),
        ("<profile>", '<!DOCTYPE p [<!ENTITY a "b">]><profile>', "<!DOCTYPE", "it declares entities"),
    ],
)
def test_csynth_that_is_malformed_is_refused(
    tmp_path: Path, old: str, new: str, at: str, reason: str
) -> None:
    assert old in REPORT
    text = REPORT.replace(old, new, 1)
    line = text[: text.index(at) if at else len(text)].count("\n") + 1
    file = written(tmp_path, text)
    with pytest.raises(BuildError) as error:
        read_csynth(file, "krnl")
    assert str(error.value) == f"{file}:{line}: report not understood: {reason}"


def test_other_xml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="<html>, expected <profile>"):
        read_csynth(written(tmp_path, "<html/>"), "krnl")
    with pytest.raises(BuildError, match="cannot be read"):
        parse_xml(tmp_path / "none.xml")
    file = tmp_path / "binary.xml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BuildError, match="cannot be read"):
        parse_xml(file)


TEXT = """\


================================================================
== Synthesis Summary Report of 'krnl'
================================================================
+ General Information:\x20
    * Date:           Fri May 17 11:06:09 2024
    * Version:        2022.1 (Build 3526262 on Mon Apr 18 15:47:01 MDT 2022)
    * Target device:  xcu280-fsvh2892-2L-e
\x20\x20\x20\x20

+ Performance & Resource Estimates:\x20
\x20\x20\x20\x20
    PS: '+' for module; 'o' for loop; '*' for dataflow
    +--------------------------+------+------+---------+-----------+----------+---------+------+
    |          Modules         | Issue|      | Latency |  Latency  | Iteration|         | Trip |          |          |           |             |             |     |
    |          & Loops         | Type | Slack| (cycles)|    (ns)   |  Latency | Interval| Count| Pipelined|   BRAM   |    DSP    |      FF     |     LUT     | URAM|
    +--------------------------+------+------+---------+-----------+----------+---------+------+
    |+ krnl*                   |Timing| -0.03|     1735|  1.735e+04|         -|     1297|     -|  dataflow|  30 (10%)|  156 (12%)|  30761 (13%)|  28244 (24%)|    -|
    | + scale_WideConfig_s     |     -|  0.28|        -|          -|         -|        -|     -|        no|         -|    15 (1%)|    3002 (1%)|    3083 (2%)|    -|
    |  o ROW                   |     -|  2.92|     1290|  1.290e+04|       129|        -|    10|        no|         -|          -|            -|            -|    -|
    |   + scale_WideConfig_Pipeline_COLUMN|     -|  0.28|       70|    700.000|         -|       70|     -|        no|         -|    15 (1%)|    2483 (1%)|    1798 (1%)|    -|
    |    o COLUMN              |    II|  2.92|       68|    680.000|        42|        3|    10|       yes|         -|          -|            -|            -|    -|
    | + relay                  |     -|  4.92|       11|    110.000|         -|       11|     -|        no|         -|          -|      6 (~0%)|     61 (~0%)|    -|
    |  o RELAY                 |     -|  7.30|        9|     90.000|         1|        1|     9|       yes|         -|          -|            -|            -|    -|
    | o TURN                  |     -|  7.30|        9|     90.000|         1|        -|     9|        no|         -|          -|            -|            -|    -|
    |  o INNER                 |     -|  7.30|        9|     90.000|         5|        2|     9|       yes|         -|          -|            -|            -|    -|
    +--------------------------+------+------+---------+-----------+----------+---------+------+


================================================================
"""  # noqa: E501


def test_the_text_of_csynth_is_read(tmp_path: Path) -> None:
    report = read_csynth_text(written(tmp_path, TEXT, "csynth.rpt"), "krnl")
    assert (report.version, report.part, report.estimated_mhz) == ("2022.1", "xcu280-fsvh2892-2L-e", None)
    assert report.resources == {"dsp": 156, "lut": 28244, "ff": 30761, "bram18": 30, "uram": 0}
    assert report.children["krnl"] == ("scale_WideConfig_s", "relay")
    below = report.below("scale_WideConfig_s")
    assert [m.name for m in below] == ["scale_WideConfig_s", "scale_WideConfig_Pipeline_COLUMN"]
    assert below[0].loops == (LoopReport("ROW", None, None, (10, 10)),)
    assert below[1].loops == (LoopReport("COLUMN", 3, 42, (10, 10)),)
    assert report.modules["relay"].loops == (LoopReport("RELAY", 1, 1, (9, 9)),)
    # behind a module's rows: a loop of the top, and one in it
    top = report.modules["krnl"].loops
    assert [(x.name, x.ii, x.depth) for x in top] == [("TURN", None, None), ("INNER", 2, 5)]


@pytest.mark.parametrize(
    ("old", "new", "at", "reason"),
    [
        ("156 (12%)", "156.5 (12%)", "156.5", "a cell is '156.5 (12%)', expected a count"),
        ("    42|", " fast|", "fast", "a cell is 'fast', expected a count"),
        ("|    DSP    |", "|", "Modules  ", "the titles of its columns are not two rows"),
        ("    DSP    |", "   Mults   |", "Modules  ", "no column DSP"),
        ("Report of 'krnl'", "Report of 'other'", "'other'", "it is about 'other', expected 'krnl'"),
        ("| + relay ", "| relay ", "| relay ", None),
        ("+ Performance & Resource", "+ Performance", "", "no '+ Performance & Resource Estimates:'"),
    ],
)
def test_text_that_is_malformed_is_refused(
    tmp_path: Path, old: str, new: str, at: str, reason: str | None
) -> None:
    if old not in TEXT:
        pytest.fail(f"{old!r} is not in the text")
    text = TEXT.replace(old, new, 1)
    line = text[: text.index(at)].count("\n") + 1 if at else len(text.splitlines())
    file = written(tmp_path, text, "csynth.rpt")
    with pytest.raises(BuildError) as error:
        read_csynth_text(file, "krnl")
    assert str(error.value).startswith(f"{file}:{line}: report not understood: {reason or ''}")
